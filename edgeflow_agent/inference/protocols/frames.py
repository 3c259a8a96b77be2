"""Tables as MLflow's clients send them: split, by record, by column, or as CSV."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.inference import tensors
from edgeflow_agent.inference.engine import DTYPES
from edgeflow_agent.wire.documents import Interface

# What pandas reads as a missing number.
_MISSING = frozenset({"", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>"})
_BOOLEANS = {"true": True, "false": False, "TRUE": True, "FALSE": False, "True": True, "False": False}


class Frame(NamedTuple):
    """Rows of equal length; `columns` is None when they have no names."""

    columns: Sequence[str] | None
    rows: Sequence[Sequence[Any]]


def split(value: Any) -> Frame:
    """`{"columns": […], "index": […], "data": [[…], …]}`; the index says nothing to a model."""
    if not isinstance(value, dict) or "data" not in value or value.keys() - {"columns", "data", "index"}:
        raise errors.InputError("dataframe_split takes an object with data, and optionally columns and index")
    columns, rows = value.get("columns"), value["data"]
    if columns is not None and not (
        isinstance(columns, list)
        and all(isinstance(name, (str, int)) and not isinstance(name, bool) for name in columns)
    ):
        raise errors.InputError("dataframe_split: columns is not a list of names")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise errors.InputError("dataframe_split: data is not a list of rows")
    width = len(columns) if columns is not None else len(rows[0]) if rows else 0
    if any(len(row) != width for row in rows):
        raise errors.InputError(f"dataframe_split: a row has not {width} values")
    # pandas numbers columns that have no names.
    unnamed = columns is None or all(isinstance(name, int) for name in columns)
    return Frame(None if unnamed else [str(name) for name in columns or ()], rows)


def records(value: Any) -> Frame:
    """`[{"a": 1, "b": 2}, …]`. What one record leaves out is missing there."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise errors.InputError("dataframe_records takes a list of objects")
    columns = list(dict.fromkeys(itertools.chain.from_iterable(value)))
    return Frame(columns, [[row.get(name) for name in columns] for row in value])


def by_column(value: dict[str, Any]) -> Frame:
    """`{"a": [1, …], "b": [2, …]}`, or one value each."""
    lists = [item if isinstance(item, list) else [item] for item in value.values()]
    if len({len(item) for item in lists}) > 1:
        raise errors.InputError("the columns are not of the same length")
    return Frame(list(value), list(zip(*lists, strict=True)))


def as_sent(frame: Frame) -> list[Any]:
    """Records by column, or plain rows where columns have no names; what is missing is None."""
    rows = [[None if value != value else value for value in row] for row in frame.rows]
    columns = frame.columns
    return rows if columns is None else [dict(zip(columns, row, strict=True)) for row in rows]


def from_csv(body: bytes, interface: Interface) -> Frame:
    """A header line and rows, each value read by the type of the input that it goes to."""
    columns, lines = _lines(body)
    readers = [_reader(name, interface) for name in columns]
    try:
        rows = [[read(text) for read, text in zip(readers, line, strict=True)] for line in lines]
    except ValueError as error:
        raise errors.InputError(f"a value is not of the type of its column: {error}") from error
    return Frame(columns, rows)


def guessed_csv(body: bytes) -> Frame:
    """The same where nothing says the types: a column is of the first kind that all of its values are."""
    names, lines = _lines(body)
    return Frame(names, list(zip(*(_guessed(column) for column in zip(*lines, strict=True)), strict=True)))


def _guessed(column: Sequence[str]) -> list[Any]:
    missing = [text.strip() in _MISSING for text in column]
    for read in (_integer, _float, _boolean, str):
        try:
            return [None if gone else read(text) for gone, text in zip(missing, column, strict=True)]
        except ValueError:
            continue
    raise AssertionError("every text is a text")


def _lines(body: bytes) -> tuple[list[str], list[list[str]]]:
    """The header line and the rows, as texts."""
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.InputError(f"the body is not CSV: {error}") from error
    lines = [line for line in lines if line]
    if not lines:
        raise errors.InputError("the body is empty; send a line with the names of the columns, then the rows")
    columns, rows = lines[0], lines[1:]
    for number, line in enumerate(rows, 2):
        if len(line) != len(columns):
            raise errors.InputError(f"row {number} has {len(line)} values instead of {len(columns)}")
    return columns, rows


def _reader(column: str, interface: Interface) -> Callable[[str], Any]:
    inputs = interface.inputs
    names = [item.name for item in interface.columns] or [item.name for item in inputs]
    places = {name: index for index, name in enumerate(names)}
    spec = inputs[0] if len(inputs) == 1 else None
    if spec is None and len(places) == len(inputs) and column in places:
        spec = next((item for item in inputs if item.name == column), inputs[places[column]])
    if spec is None:
        return str  # no input takes this column
    dtype = DTYPES[spec.dtype]
    if dtype is np.object_:
        return str
    if dtype is np.bool_:
        return _boolean
    return _float if np.dtype(dtype).kind == "f" else _integer


def _float(text: str) -> float | None:
    text = text.strip()
    if text in _MISSING:
        return None
    if "_" in text:  # a number to Python, and to nobody else
        raise ValueError(f"could not convert string to float: {text!r}")
    return float(text)


def _integer(text: str) -> int:
    text = text.strip()
    if not text.removeprefix("-").removeprefix("+").isdecimal() or len(text) > 40:
        raise ValueError(f"{text[:40]!r} is not a whole number")
    return int(text)


def _boolean(text: str) -> bool:
    value = _BOOLEANS.get(text.strip())
    if value is None:
        raise ValueError(f"{text[:40]!r} is neither true nor false")
    return value


def feed(frame: Frame, interface: Interface) -> dict[str, Any]:
    """What a graph takes, from the columns that it knows; others are left out. Raise InputError."""
    inputs = interface.inputs
    wanted = [item.name for item in interface.columns] or (
        [item.name for item in inputs] if len(inputs) > 1 else []
    )
    columns, rows = frame
    if columns is None or not wanted:
        width = len(rows[0]) if rows else len(wanted)
        if wanted and width != len(wanted):
            raise errors.InputError(f"a row has {width} values; the model takes {', '.join(wanted)}")
        return tensors.from_table(rows, wanted, inputs)
    places = {name: index for index, name in enumerate(columns)}
    missing = [name for name in wanted if name not in places]
    if missing:
        raise errors.InputError(f"column {missing[0]!r} is missing; the model takes {', '.join(wanted)}")
    order = [places[name] for name in wanted]
    return tensors.from_table([[row[place] for place in order] for row in rows], wanted, inputs)
