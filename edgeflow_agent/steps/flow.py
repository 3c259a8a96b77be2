"""What goes from step to step: its form, known before anything runs, and what a request leaves for later."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# Sizes of an axis that only a request knows are None; a rank that only a request knows is no shape at all.
Shape = tuple[int | None, ...] | None

DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "float32": np.float32,
    "float64": np.float64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """What a value will be: `request` (as it came), `records` (objects), `table` (rows of columns),
    `image` (height, width, channels) or `tensor`."""

    kind: str
    dtype: str = ""
    shape: Shape = None

    def __str__(self) -> str:
        words = {"request": "the request as it came", "records": "records", "image": "an image"}
        return words.get(self.kind, f"a {self.kind}")


REQUEST = Form(kind="request")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where the pixels of an image went: `place = scale * original + offset`, per axis."""

    width: int  # of the original
    height: int
    scale_x: float = 1.0
    scale_y: float = 1.0
    offset_x: float = 0.0
    offset_y: float = 0.0

    def scaled(self, x: float, y: float) -> Geometry:
        """After a resize by these factors."""
        return dataclasses.replace(
            self,
            scale_x=self.scale_x * x,
            scale_y=self.scale_y * y,
            offset_x=self.offset_x * x,
            offset_y=self.offset_y * y,
        )

    def moved(self, x: float, y: float) -> Geometry:
        """After so many pixels were put before the left and the upper edge (negative: cut off)."""
        return dataclasses.replace(self, offset_x=self.offset_x + x, offset_y=self.offset_y + y)

    def back(self, boxes: Array) -> Array:
        """Boxes of left, top, right and bottom on the original."""
        offset = np.array([self.offset_x, self.offset_y] * 2)
        scale = np.array([self.scale_x, self.scale_y] * 2)
        return np.asarray((boxes - offset) / scale)


class Feed(dict[str, Any]):
    """What a graph takes, by input name, and what `after` must know of the request it came from."""

    __slots__ = ("carried", "geometry", "one", "state")

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.state = state or {}  # as the caller gave it
        self.carried: dict[str, Array] = {}  # what goes into the next request's state besides outputs
        self.geometry: Geometry | None = None
        self.one = True  # the request was one thing, not a list of them


class Step(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="step",
    dict=True,  # a place for what is computed once
):
    """One entry of the document; its class says which step, its fields are the parameters."""

    @property
    def word(self) -> str:
        """What the step is called in the document."""
        return str(self.__struct_config__.tag)


class Before(Step, frozen=True):
    """A step between the request and the graph."""

    def form(self, given: Form) -> Form:
        """What it makes of a value of this form; raise ValueError when it cannot take it."""
        raise NotImplementedError

    def run(self, value: Any, feed: Feed) -> Any:
        """The value after this step. Raise InputError when the caller must send something else."""
        raise NotImplementedError


class After(Step, frozen=True):
    """A step between the graph's outputs and the answer."""

    def fit(self, outputs: dict[str, Form]) -> None:
        """Follow what the answer will hold; raise ValueError when the step asks for something else."""
        raise NotImplementedError

    def run(self, answer: dict[str, Any], feed: Feed) -> None:
        """Change the answer. Raise ModelError when the outputs are not what the step was declared for."""
        raise NotImplementedError


def expect(given: Form, *kinds: str) -> None:
    """Raise ValueError unless the value is of one of these kinds."""
    if given.kind not in kinds:
        wanted = " or ".join(str(Form(kind=kind)) for kind in kinds)
        raise ValueError(f"takes {wanted}, and is given {given}")
