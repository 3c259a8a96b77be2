"""Steps on records: from named fields to rows of numbers."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.steps import numbers
from edgeflow_agent.steps.flow import Array, Before, Feed, Form, expect

Cell = str | bool | int | float | None
Dtype = Literal[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "bool", "string",
]  # fmt: skip

_TAKEN: dict[str, tuple[type, ...]] = {
    "float": (int, float),
    "int": (int,),
    "bool": (bool,),
    "string": (str,),
}
_WANTED = {"float": "a number", "int": "a whole number", "bool": "true or false", "string": "text"}


class Category(Before, tag="category", frozen=True, kw_only=True):
    """A field of words as numbers: the place in `values` (or its entry of `codes`), or one column each.

    A value that is not listed, null or left out is an error, zeros in every column, or one category more.
    """

    field: str
    values: tuple[str | bool | int | float, ...]
    encoding: Literal["ordinal", "one_hot"] = "ordinal"
    codes: tuple[int | float, ...] = ()
    unknown: Literal["error", "zeros", "other"] = "error"

    def __post_init__(self) -> None:
        if not self.values or len({_key(value) for value in self.values}) != len(self.values):
            raise ValueError("values must hold at least one value, and none twice")
        if self.encoding == "ordinal" and self.unknown == "zeros":
            raise ValueError("unknown = zeros is for one_hot; among places 0 is the first value's")
        wanted = len(self.values) + (self.unknown == "other")
        if self.codes and (self.encoding != "ordinal" or len(self.codes) != wanted):
            raise ValueError(f"codes is for ordinal and takes a number for each value, here {wanted}")

    def form(self, given: Form) -> Form:
        expect(given, "request", "records")
        return Form(kind="records")

    def run(self, value: Any, feed: Feed) -> dict[str, Any] | list[dict[str, Any]]:
        rows = records(value, feed)
        encoded = [{**row, self.field: self._encoded(row.get(self.field))} for row in rows]
        return encoded if isinstance(value, list) else encoded[0]

    @functools.cached_property
    def _places(self) -> dict[tuple[str, Any], int]:
        return {_key(item): index for index, item in enumerate(self.values)}

    def _encoded(self, given: Any) -> Any:
        index = self._places.get(_key(given)) if isinstance(given, (str, bool, int, float)) else None
        if index is None:
            if self.unknown == "error":
                raise errors.InputError(f"field {self.field!r}: {_shown(given)} is none of the known values")
            index = len(self.values)
        if self.encoding == "ordinal":
            return self.codes[index] if self.codes else index
        # A tuple says that these are columns of their own.
        return tuple(int(index == place) for place in range(len(self.values) + (self.unknown == "other")))


class Columns(Before, tag="columns", frozen=True, kw_only=True):
    """The fields of a record, or of a list of them, as a row each, in the order of `names`.

    A field that is missing or null takes its default; null as the default is NaN.
    """

    names: tuple[str, ...]
    defaults: dict[str, Cell] = {}  # noqa: RUF012 - msgspec copies it
    dtype: Dtype = "float32"
    extra: Literal["refuse", "ignore"] = "refuse"

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError("names must hold at least one name, and none twice")
        if odd := sorted(self.defaults.keys() - set(self.names)):
            raise ValueError(f"there is a default for {odd[0]!r}, which is none of the names")
        for name, value in self.defaults.items():
            if value is None and not self.dtype.startswith("float"):
                raise ValueError(f"null as the default of {name!r} needs floats")
            try:
                numbers.array([value], self.dtype, f"the default of {name!r}")
            except errors.InputError as error:
                raise ValueError(str(error)) from error

    def form(self, given: Form) -> Form:
        expect(given, "request", "records")
        # A one-hot field becomes several columns, which only the record shows.
        width = len(self.names) if given.kind == "request" else None
        return Form(kind="table", dtype=self.dtype, shape=(None, width))

    def run(self, value: Any, feed: Feed) -> Array:
        rows = records(value, feed)
        table = [
            self._row(row, f" in record {index}" if len(rows) > 1 else "") for index, row in enumerate(rows)
        ]
        if len({len(row) for row in table}) != 1:
            raise errors.InputError("the records have different numbers of values")
        return numbers.array(table, self.dtype, "the columns")

    def _row(self, row: dict[str, Any], where: str) -> list[Any]:
        if self.extra == "refuse" and (odd := [name for name in row if name not in self.names]):
            raise errors.InputError(f"unknown field {odd[0]!r}{where}; expected {', '.join(self.names)}")
        cells: list[Any] = []
        for name in self.names:
            cell = row.get(name)
            if cell is None:
                if name not in self.defaults:
                    state = "null" if name in row else "missing"
                    raise errors.InputError(
                        f"field {name!r} is {state}{where}; expected {', '.join(self.names)}"
                    )
                cells.append(self.defaults[name])
            elif isinstance(cell, tuple):  # of a category: a caller has lists only
                cells += map(bool, cell) if self.dtype == "bool" else cell
            elif not isinstance(cell, _TAKEN[self._kind]) or (
                isinstance(cell, bool) and self._kind != "bool"
            ):
                raise errors.InputError(
                    f"field {name!r}{where}: expected {_WANTED[self._kind]}, got {numbers.kind(cell)}"
                )
            else:
                cells.append(cell)
        return cells

    @property
    def _kind(self) -> str:
        return self.dtype.rstrip("0123456789").removeprefix("u")


class ScaleColumns(Before, tag="scale_columns", frozen=True, kw_only=True):
    """`(column - mean) / std`, one of each per column; computed in float64, given on in the table's type."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError("mean and std must be of the same length")
        if 0 in self.std or not all(math.isfinite(number) for number in (*self.mean, *self.std)):
            raise ValueError("mean and std must be finite, and std not zero")

    def form(self, given: Form) -> Form:
        expect(given, "table")
        if not given.dtype.startswith("float"):
            raise ValueError(f"takes a table of floats, and is given {given.dtype}")
        width = given.shape[1] if given.shape else None
        if width is not None and width != len(self.mean):
            raise ValueError(f"has {len(self.mean)} means for {width} columns")
        return Form(kind="table", dtype=given.dtype, shape=(None, len(self.mean)))

    def run(self, value: Array, feed: Feed) -> Array:
        if value.shape[1] != len(self.mean):
            raise errors.InputError(f"{value.shape[1]} columns came, and {len(self.mean)} are declared")
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (value.astype(np.float64) - np.asarray(self.mean)) / np.asarray(self.std)
            return np.asarray(scaled.astype(value.dtype))


def records(value: Any, feed: Feed) -> list[dict[str, Any]]:
    """The records of a request: one object, or a list of them."""
    rows = value
    if isinstance(value, dict):
        rows = [value]
    elif isinstance(value, list):
        feed.one = False
    if not isinstance(rows, list) or not rows:
        raise errors.InputError(f"expected an object, or a list of objects, got {numbers.kind(value)}")
    for row in rows:
        if not isinstance(row, dict):
            raise errors.InputError(f"expected a list of objects, with {numbers.kind(row)} among them")
    return rows


def _key(value: Any) -> tuple[str, Any]:
    """True is not 1 here, though Python says so; 1 is 1.0."""
    if isinstance(value, bool):
        return "boolean", value
    return ("text", value) if isinstance(value, str) else ("number", value)


def _shown(value: Any) -> str:
    if isinstance(value, (str, bool, int, float)):
        return repr(value)[:60]
    return "null" if value is None else numbers.kind(value)
