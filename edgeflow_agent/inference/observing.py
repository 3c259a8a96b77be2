"""Which requests are looked at: every n-th, taken on the event loop, counted by another thread."""

from __future__ import annotations

import collections
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from edgeflow_agent.inference.engine import Engine
from edgeflow_agent.inference.slot import Serving

_MOST_CAPTURED = 16  # between two looks
_MOST_ROWS = 1024  # of one request
_MOST_HELD = 128
_HELD_BYTES = 2 * 2**20
_LARGEST_BYTES = 16 * 2**20  # of a request that is held alone
_JOINED_BYTES = 2**20  # of the tensors that are put together
_OVERHEAD = 256  # in bytes, of one value besides its content
_SAMPLED = 64  # words of an array whose lengths are looked at


class Taken(NamedTuple):
    """What a model took and gave for one request."""

    serving: Serving
    feed: Mapping[str, Any]
    outputs: Sequence[Any]
    size: int  # in bytes


class Observer:
    """Holds requests until somebody collects them: of so many bytes at most, or a single larger one.

    `take` is called on the event loop alone, the others by one thread at a time; `every` may be set by
    anybody: one request in so many is taken, by chance, so that callers who take turns are all seen. 0: none.
    `capture_rate` is the share of requests that are kept whole besides. Only those of the model with `engine`
    are held: what is held keeps its model in memory.
    """

    def __init__(self, *, most_bytes: int = _HELD_BYTES) -> None:
        self._every = 0
        self.capture_rate = 0.0
        self.engine: Engine | None = None
        self.seen = 0  # requests that could have been taken
        self._most_bytes = most_bytes
        self._taken: collections.deque[Taken] = collections.deque()
        self._captured: collections.deque[Taken] = collections.deque()
        self._pause = 0
        # Two counters with one writer each: no lock on the way of a request.
        self._put = self._got = 0
        self._captured_put = self._captured_got = 0

    def take(self, serving: Serving, feed: Mapping[str, Any], outputs: Sequence[Any]) -> None:
        """Keep this request if it is its turn and there is room."""
        self.seen += 1
        rate = self.capture_rate
        if rate and random.random() < rate:  # noqa: S311
            self._capture(serving, feed, outputs)
        if self._pause > 0:
            self._pause -= 1
            return
        every = self._every
        if every != 1:
            if not every:
                return
            self._pause = random.randrange(2 * every - 1)  # noqa: S311 - on average one less than `every`
        if len(self._taken) >= _MOST_HELD:
            return
        size = _size(feed.values()) + _size(outputs)
        held = self._put - self._got
        if held + size > (self._most_bytes if held else _LARGEST_BYTES) or serving.engine is not self.engine:
            return
        self._put += size
        self._taken.append(Taken(serving, feed, outputs, size))

    def _capture(self, serving: Serving, feed: Mapping[str, Any], outputs: Sequence[Any]) -> None:
        size = _size(feed.values()) + _size(outputs)
        room = self._most_bytes - (self._captured_put - self._captured_got)
        if len(self._captured) < _MOST_CAPTURED and size <= room and serving.engine is self.engine:
            self._captured_put += size
            self._captured.append(Taken(serving, feed, outputs, size))

    @property
    def every(self) -> int:
        """One request in so many is taken."""
        return self._every

    @every.setter
    def every(self, every: int) -> None:
        self._every = every
        # Should the event loop count one down at this very moment, the pause is one longer, and that is all.
        self._pause = min(self._pause, max(2 * every - 1, 0))

    @property
    def is_filling(self) -> bool:
        """Whether soon nothing more will be taken."""
        return len(self._taken) > _MOST_HELD / 2 or self._put - self._got > self._most_bytes / 2

    @property
    def held(self) -> int:
        """How many requests wait to be collected."""
        return len(self._taken)

    def captured(self) -> Iterator[Taken]:
        """The requests that are to be kept whole; they are held no longer."""
        while self._captured:
            taken = self._captured.popleft()
            self._captured_got += taken.size
            yield taken

    def collect(self, most: int) -> list[Taken]:
        """The oldest requests that are held; they are held no longer."""
        found: list[Taken] = []
        while self._taken and len(found) < most:
            found.append(self._taken.popleft())
            self._got += found[-1].size
        return found


def _size(values: Iterable[Any]) -> int:
    return sum(map(_size_of, values))


def _size_of(value: Any) -> int:
    """About the memory of one value: of many words or maps some stand for all."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "O":
            return value.nbytes + _OVERHEAD
        some = value.reshape(-1)[:: value.size // _SAMPLED + 1].tolist()
    elif isinstance(value, (list, tuple)):
        some = value[:: len(value) // _SAMPLED + 1]
        return _OVERHEAD + _size(some) * len(value) // max(len(some), 1)
    elif isinstance(value, dict):
        return _OVERHEAD + 100 * len(value)
    else:
        return _OVERHEAD
    words = sum(len(item) for item in some if isinstance(item, (str, bytes)))
    return _OVERHEAD + value.nbytes + (50 * len(some) + words) * value.size // max(len(some), 1)


def tables(taken: Sequence[Taken]) -> Iterator[tuple[dict[str, Any], dict[str, Any], int]]:
    """Requests to one model as few tables: rows of the same form are put together, as long as they are small.
    With each, how many requests it is."""
    groups: dict[tuple[Any, ...], list[Taken]] = {}
    for item in taken:
        groups.setdefault(_form(item), []).append(_thinned(item))
    for items in groups.values():
        step = max(_JOINED_BYTES // max(items[0].size, 1), 1)
        for begin in range(0, len(items), step):
            some = items[begin : begin + step]
            inputs = {name: [item.feed[name] for item in some] for name in items[0].feed}
            columns = zip(*(item.outputs for item in some), strict=True)
            outputs = dict(zip(items[0].serving.engine.output_names, columns, strict=True))
            yield _joined(inputs), _joined(outputs), len(some)


def _form(item: Taken) -> tuple[Any, ...]:
    """What a row of each of its tensors is like; of what has no rows, its name."""
    values = chain(item.feed.items(), zip(item.serving.engine.output_names, item.outputs, strict=True))
    return tuple(
        [(name, value.dtype, value.shape[1:]) if _has_rows(value) else name for name, value in values]
    )


def _has_rows(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 0


def _joined(parts: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {
        name: some[0] if len(some) == 1 else np.concatenate(some)
        for name, some in parts.items()
        if _has_rows(some[0])
    }


def _thinned(item: Taken) -> Taken:
    """The request, with some rows of very many, evenly picked."""
    if item.size <= _MOST_ROWS:  # a row takes a byte at least
        return item
    rows = {len(value) for value in (*item.feed.values(), *item.outputs) if _has_rows(value)}
    if len(rows) != 1 or (count := rows.pop()) <= _MOST_ROWS:
        return item
    picked = np.linspace(0, count - 1, _MOST_ROWS).astype(np.int64)
    feed = {name: value[picked] if _has_rows(value) else value for name, value in item.feed.items()}
    outputs = [value[picked] if _has_rows(value) else value for value in item.outputs]
    return Taken(item.serving, feed, outputs, _size(feed.values()) + _size(outputs))
