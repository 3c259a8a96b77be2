"""Steps that say where a value comes from and into which input of the graph it goes."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.steps import numbers
from edgeflow_agent.steps.flow import DTYPES, Array, Before, Feed, Form, Shape, expect
from edgeflow_agent.steps.tables import Dtype

_MAX_ELEMENTS = 10**7


class Field(Before, tag="field", frozen=True, kw_only=True):
    """Go on with one member of the request's object."""

    field: str

    def form(self, given: Form) -> Form:
        expect(given, "request")
        return given

    def run(self, value: Any, feed: Feed) -> Any:
        if not isinstance(value, dict):
            raise errors.InputError(f"expected an object with {self.field!r}, got {numbers.kind(value)}")
        if self.field not in value:
            raise errors.InputError(f"member {self.field!r} is missing")
        return value[self.field]


class Give(Before, tag="feed", frozen=True, kw_only=True):
    """Give the value to an input of the graph. The step after it begins with the request again."""

    input: str
    dtype: Dtype | None = None

    def form(self, given: Form) -> Form:
        expect(given, "request", "table", "image", "tensor")
        if given.kind == "request":
            if self.dtype is None:
                raise ValueError("needs a dtype for values as the caller sent them")
            return Form(kind="tensor", dtype=self.dtype)
        if self.dtype is not None:
            raise ValueError("takes a dtype only for values as the caller sent them")
        return Form(kind="tensor", dtype=given.dtype, shape=given.shape)

    def run(self, value: Any, feed: Feed) -> Any:
        if self.dtype is not None:
            value = numbers.array(value, self.dtype, "the value")
        feed[self.input] = value
        return value


class Constant(Before, tag="constant", frozen=True, kw_only=True):
    """An input that has the same value for every request."""

    input: str
    value: Any
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        try:
            _ = self.array
        except errors.InputError as error:
            raise ValueError(str(error)) from error

    @functools.cached_property
    def array(self) -> Array:
        """The value; the graph only reads it."""
        return numbers.array(self.value, self.dtype, "the value")

    def form(self, given: Form) -> Form:
        return Form(kind="tensor", dtype=self.dtype, shape=self.array.shape)

    def run(self, value: Any, feed: Feed) -> Any:
        feed[self.input] = self.array
        return value


class State(Before, tag="state", frozen=True, kw_only=True):
    """An input that holds what the model remembers: from the request's `state`, zeros in the first request.
    What comes out of `output` is the state of the next one."""

    input: str
    output: str
    shape: tuple[int, ...]
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        if min(self.shape, default=1) < 1 or math.prod(self.shape) > _MAX_ELEMENTS:
            raise ValueError(f"shape must hold whole sizes, at most {_MAX_ELEMENTS} elements")

    def form(self, given: Form) -> Form:
        return Form(kind="tensor", dtype=self.dtype, shape=self.shape)

    def run(self, value: Any, feed: Feed) -> Any:
        if self.input in feed.state:
            what = f"the state {self.input!r}"
            state = numbers.array(feed.state[self.input], self.dtype, what)
            if state.shape != self.shape:
                raise errors.InputError(f"{what} must have the shape {list(self.shape)}: send back what came")
            feed[self.input] = state
        else:
            blank = "" if self.dtype == "string" else 0
            feed[self.input] = np.full(self.shape, blank, dtype=DTYPES[self.dtype])
        return value


def mismatch(given: Form, dtype: str, shape: Shape) -> str:
    """Why a value of this form cannot go into such an input; empty when it can."""
    if given.dtype != dtype:
        return f"gives {given.dtype}, and the graph takes {dtype}"
    # A graph that does not know the rank of its input says the same as one that takes a scalar.
    if not shape or given.shape is None:
        return ""
    if len(given.shape) != len(shape):
        return f"gives {len(given.shape)} axes, and the graph takes {len(shape)}"
    for axis, (own, wanted) in enumerate(zip(given.shape, shape, strict=True)):
        if own is not None and wanted is not None and own != wanted:
            return f"gives {own} along axis {axis}, and the graph takes {wanted}"
    return ""
