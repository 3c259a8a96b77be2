"""Steps on raw signals: the bytes of a file, the samples of a sound."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.steps import numbers, payload
from edgeflow_agent.steps.flow import DTYPES, Array, Before, Feed, Form, expect

_MAX_LENGTH = 10**7


class BytesWindow(Before, tag="bytes_window", frozen=True, kw_only=True):
    """The first and the last bytes of a file as whole numbers, `padding` where there are too few: after the
    first ones, before the last ones. `strip` leaves white space at both ends of the file out, looking at
    `block` bytes of each."""

    first: int = 0
    last: int = 0
    padding: int = 256
    strip: bool = False
    block: int = 4096
    minimum: int = 1
    dtype: Literal["uint8", "int16", "int32", "int64", "float32"] = "int32"

    def __post_init__(self) -> None:
        if min(self.first, self.last) < 0 or not 0 < self.first + self.last <= _MAX_LENGTH:
            raise ValueError(f"first and last must be at least 0, and together from 1 to {_MAX_LENGTH}")
        if self.block < max(self.first, self.last):
            raise ValueError("block must be at least as large as first and last")
        if not 0 <= self.padding <= (255 if self.dtype == "uint8" else 2**15 - 1):
            raise ValueError(f"padding does not fit {self.dtype}")

    def form(self, given: Form) -> Form:
        expect(given, "request")
        return Form(kind="tensor", dtype=self.dtype, shape=(1, self.first + self.last))

    def run(self, value: Any, feed: Feed) -> Array:
        content = payload.content(value, "the bytes of a file")
        begin, end = content[: self.block], content[-self.block :]
        if self.strip:
            begin, end = begin.lstrip(), end.rstrip()
        if len(begin) < self.minimum:
            raise errors.InputError(
                f"{len(begin)} bytes{' besides white space' if self.strip else ''}; it takes {self.minimum}"
            )
        result = np.full((1, self.first + self.last), self.padding, dtype=DTYPES[self.dtype])
        head = np.frombuffer(begin[: self.first], dtype=np.uint8)
        result[0, : head.size] = head
        tail = np.frombuffer(end[max(len(end) - self.last, 0) :], dtype=np.uint8)
        result[0, result.shape[1] - tail.size :] = tail
        return result


class Frame(Before, tag="frame", frozen=True, kw_only=True):
    """Samples as one row of `length`: cut or filled with zeros at `side`, or refused where that is declared.

    With `context`, so many samples of the frame before come first: they travel in the state, by the name of
    `state`.
    """

    length: int
    side: Literal["start", "end"] = "end"
    longer: Literal["cut", "refuse"] = "cut"
    shorter: Literal["pad", "refuse"] = "pad"
    context: int = 0
    state: str = "context"
    dtype: Literal["float32", "float64", "int16"] = "float32"

    def __post_init__(self) -> None:
        if not 0 < self.length <= _MAX_LENGTH or not 0 <= self.context <= self.length:
            raise ValueError(f"length must be from 1 to {_MAX_LENGTH}, and context no longer than it")

    def form(self, given: Form) -> Form:
        expect(given, "request")
        return Form(kind="tensor", dtype=self.dtype, shape=(1, self.context + self.length))

    def run(self, value: Any, feed: Feed) -> Array:
        samples = numbers.array(value, self.dtype, "the samples")
        if samples.ndim == 2 and samples.shape[0] == 1:
            samples = samples[0]
        if samples.ndim != 1:
            raise errors.InputError(f"expected one row of samples, got {samples.ndim} axes")
        given = samples.size
        if (given > self.length and self.longer == "refuse") or (
            given < self.length and self.shorter == "refuse"
        ):
            raise errors.InputError(f"expected {self.length} samples, got {given}")
        frame = np.zeros(self.length, dtype=samples.dtype)
        if self.side == "end":
            frame[: min(given, self.length)] = samples[: self.length]
        elif given:
            frame[max(self.length - given, 0) :] = samples[-self.length :]
        if self.context:
            frame = np.concatenate([self._before(feed), frame])
            feed.carried[self.state] = frame[-self.context :]
        return frame[np.newaxis]

    def _before(self, feed: Feed) -> Array:
        if self.state not in feed.state:
            return np.zeros(self.context, dtype=DTYPES[self.dtype])
        before = numbers.array(feed.state[self.state], self.dtype, f"the state {self.state!r}")
        if before.shape != (self.context,):
            raise errors.InputError(
                f"the state {self.state!r} has {self.context} samples: send back what came"
            )
        return before
