"""JSON to numpy and back, by the types that the graph declares."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.inference.engine import DTYPES
from edgeflow_agent.wire.documents import Interface, TensorSpec

_FLOATS = (np.float16, np.float32, np.float64)
# A tensor of 1000000000 times nothing has no values, but as many empty lists in JSON.
_LARGEST_EMPTY = 1 << 20
_EXAMPLE_VALUES = {"tensor(string)": '"text"', "tensor(bool)": "true"}


def parse(body: bytes | memoryview, *, constants: bool = False) -> Any:
    """The JSON value of a request body. `constants` takes the NaN and Infinity that Python's clients write
    as well, though they are no JSON."""
    if not body:
        raise errors.InputError("the body is empty; send JSON, for example [5.1, 3.5, 1.4, 0.2]")
    try:
        if constants and (b"NaN" in (text := bytes(body)) or b"Infinity" in text):
            return json.loads(text)
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError) as error:
        raise errors.InputError(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise errors.InputError("the body is nested too deeply") from error


def decode(value: Any, interface: Interface) -> dict[str, Any]:
    """The feed of a graph from what a person would send: a row, a batch, a record by column name, a list
    of records, or `{"inputs": …}`. Raise InputError that names the input and what is wrong with it."""
    inputs = interface.inputs
    if len(inputs) == 1 and isinstance(value, list) and not (value and isinstance(value[0], dict)):
        return {inputs[0].name: to_array(value, inputs[0])}
    names = {item.name for item in inputs}
    columns = [item.name for item in interface.columns]
    if isinstance(value, dict) and "inputs" in value and "inputs" not in names and "inputs" not in columns:
        extra = [key for key in value if key != "inputs"]
        if extra:
            raise errors.InputError(f"unknown member {extra[0]!r} beside 'inputs'")
        value = value["inputs"]
    if isinstance(value, dict):
        if columns and not (value.keys() <= names):
            return _records([value], interface)
        return _by_name(value, inputs)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _records(value, interface)
    if len(inputs) == 1:
        array = to_array(value, inputs[0])
        return {} if array is None else {inputs[0].name: array}
    if isinstance(value, list) and value and len(columns) == len(inputs):
        rows = value if isinstance(value[0], list) else [value]
        if all(isinstance(row, list) and len(row) == len(columns) for row in rows):
            return _records([dict(zip(columns, row, strict=True)) for row in rows], interface)
    raise errors.InputError(
        f"the model has {len(inputs)} inputs ({listing(inputs)}); name them: "
        '{"inputs": {"' + inputs[0].name + '": …}}'
        if inputs
        else "the model has no inputs; send {}"
    )


def _by_name(value: Mapping[str, Any], inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    feed = {spec.name: to_array(value[spec.name], spec) for spec in inputs if spec.name in value}
    if len(value) > len(feed):
        unknown = next(key for key in value if key not in feed)
        raise errors.InputError(f"unknown input {unknown!r}; the model takes {listing(inputs)}")
    return complete(feed, inputs)


def complete(feed: dict[str, Any], inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """The feed, without optional inputs that were not given. Raise InputError when another is missing."""
    for spec in inputs:
        if feed.get(spec.name) is None:
            if not is_optional(spec):
                raise errors.InputError(f"input {spec.name!r} is missing; the model takes {listing(inputs)}")
            feed.pop(spec.name, None)
    return feed


def _records(rows: Sequence[Any], interface: Interface) -> dict[str, Any]:
    inputs = interface.inputs
    columns = [item.name for item in interface.columns] or (
        [item.name for item in inputs] if len(inputs) > 1 else []
    )
    if not columns:
        raise errors.InputError(
            f"the model carries no column names; send values in order for {listing(inputs)}"
        )
    known = set(columns)
    for index, row in enumerate(rows):
        where = f" in record {index}" if len(rows) > 1 else ""
        if not isinstance(row, dict):
            raise errors.InputError(f"expected an object with columns{where}, got {_kind(row)}")
        for column in columns:
            if column not in row:
                raise errors.InputError(f"column {column!r} is missing{where}; expected {', '.join(columns)}")
        if len(row) > len(known):
            unknown = next(key for key in row if key not in known)
            raise errors.InputError(f"unknown column {unknown!r}{where}; expected {', '.join(columns)}")
    return from_table([[row[column] for column in columns] for row in rows], columns, inputs)


def from_table(
    rows: Sequence[Sequence[Any]], columns: Sequence[str], inputs: Sequence[TensorSpec]
) -> dict[str, Any]:
    """The feed from rows of equal length, whose values stand in the order of `columns`."""
    if len(inputs) == 1:
        return {inputs[0].name: to_array(rows, inputs[0])}
    if len(inputs) != len(columns):
        raise errors.InputError(
            f"the model has {len(inputs)} inputs and {len(columns)} columns; name the inputs: "
            f"{listing(inputs)}"
        )
    # One input per column: converters keep the name, or change characters but keep the order.
    by_name = {spec.name for spec in inputs} == set(columns)
    feed = {}
    for index, spec in enumerate(inputs):
        place = columns.index(spec.name) if by_name else index
        values = [row[place] for row in rows]
        feed[spec.name] = to_array([[item] for item in values] if len(spec.shape) == 2 else values, spec)
    return feed


def to_array(value: Any, spec: TensorSpec) -> Any:
    """An array of exactly the declared type and a fitting shape; None for an optional input that is null.
    `{"shape": …, "data": …}` says a shape that nested lists cannot say: that of a tensor without values."""
    if isinstance(value, dict) and value.keys() == {"shape", "data"}:
        return reshaped(cast(value["data"], spec), spec, _sizes(value["shape"], spec))
    if value is None and is_optional(spec):
        return None
    return _shaped(cast(value, spec), spec)


def cast(value: Any, spec: TensorSpec) -> Any:
    """An array of exactly the declared type, of whatever shape. Raise InputError."""
    dtype = DTYPES[spec.dtype]
    return _strings(value, spec) if dtype is np.object_ else _numbers(value, spec, dtype)


def reshaped(array: Any, spec: TensorSpec, shape: tuple[int, ...]) -> Any:
    """The values of an array, row by row, in a shape that the graph takes. Raise InputError."""
    if spec.shape and not fits(shape, spec.shape):
        raise errors.InputError(
            f"input {spec.name!r}: expected {expected(spec)}, got {_word(array)} of shape {_shape(shape)}"
        )
    if 0 in shape and math.prod(size for size in shape if size) > _LARGEST_EMPTY:
        raise errors.InputError(f"input {spec.name!r}: {_shape(shape)} is much for a tensor without values")
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise errors.InputError(
            f"input {spec.name!r}: {array.size} values do not make the shape {_shape(shape)}"
        ) from error


def fits(shape: Sequence[int], declared: Sequence[Any]) -> bool:
    """Whether a tensor of this shape is one of those that the graph declares."""
    if len(shape) != len(declared):
        return False
    for wanted, given in zip(declared, shape, strict=True):
        if wanted != given and is_fixed(wanted):
            return False
    return True


def is_fixed(size: Any) -> bool:
    """Whether a dimension is one number."""
    return isinstance(size, int) and size >= 0


def is_optional(spec: TensorSpec) -> bool:
    """Whether the graph runs without this input."""
    return spec.dtype.startswith("optional(")


def _sizes(value: Any, spec: TensorSpec) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 62 for size in value
    ):
        raise errors.InputError(f"input {spec.name!r}: its shape is not a list of sizes such as [1, 3]")
    return tuple(value)


def _strings(value: Any, spec: TensorSpec) -> Any:
    try:
        array = np.array(value, dtype=np.object_)
    except ValueError as error:
        raise _ragged(spec) from error
    for item in array.flat:
        if not isinstance(item, str):
            raise _mismatch(spec, f"{_kind(item)} among the values", array)
    return array


def _numbers(value: Any, spec: TensorSpec, dtype: Any) -> Any:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise _ragged(spec) from error
    except OverflowError as error:
        raise errors.InputError(f"input {spec.name!r}: a number is out of range of {spec.dtype}") from error
    kind = array.dtype.kind
    if array.size == 0:
        return array.astype(dtype)
    if dtype in _FLOATS:
        if kind == "O":
            array = _with_gaps(array, spec)
        elif kind not in "fiu":
            raise _mismatch(spec, _word(array), array)
        with np.errstate(over="ignore"):
            typed = array.astype(dtype)
        # JSON knows no infinity, so one that is there now mostly came from the cast.
        infinite = np.isinf(typed)
        if np.count_nonzero(infinite) and not np.isinf(array[infinite]).all():
            raise errors.InputError(f"input {spec.name!r}: a number is out of range of {spec.dtype}")
        return typed
    if dtype is np.bool_:
        if kind != "b":
            raise _mismatch(spec, _word(array), array)
        return array
    if kind in "Of":
        # numpy makes floats of whole numbers on both sides of 2**63: look at what was sent.
        exact = np.array(value, dtype=np.object_)
        if all(isinstance(item, int) and not isinstance(item, bool) for item in exact.flat):
            array, kind = exact, "i"
    if kind not in "iu":
        raise _mismatch(spec, _word(array), array)
    limits = np.iinfo(dtype)
    if int(array.min()) < limits.min or int(array.max()) > limits.max:
        raise errors.InputError(
            f"input {spec.name!r}: expected {spec.dtype} between {limits.min} and {limits.max}, "
            f"got {int(array.min())} to {int(array.max())}"
        )
    return array.astype(dtype)


def _with_gaps(array: Any, spec: TensorSpec) -> Any:
    """null means a missing number; anything else that is no number is refused."""
    for item in array.flat:
        if item is not None and (isinstance(item, bool) or not isinstance(item, (int, float))):
            raise _mismatch(spec, f"{_kind(item)} among the values", array)
    try:
        return array.astype(np.float64)
    except OverflowError as error:
        raise errors.InputError(f"input {spec.name!r}: a number is out of range of {spec.dtype}") from error


def _shaped(array: Any, spec: TensorSpec) -> Any:
    shape = spec.shape
    if not shape:
        # ONNX Runtime says () for a scalar and for a rank that it does not know: the graph decides.
        return array
    if array.shape == (0,) and not is_fixed(shape[0]) and all(map(is_fixed, shape[1:])):
        array = array.reshape((0, *shape[1:]))  # a batch of none
    elif array.ndim == len(shape) - 1 and (not isinstance(shape[0], int) or shape[0] == 1):
        array = array[np.newaxis]
    elif array.ndim == 0 and all(not isinstance(size, int) or size == 1 for size in shape):
        array = array.reshape((1,) * len(shape))
    if not fits(array.shape, shape):
        raise _mismatch(spec, _word(array), array)
    return array


def _ragged(spec: TensorSpec) -> errors.InputError:
    return errors.InputError(f"input {spec.name!r}: expected {expected(spec)}, got rows of different lengths")


def _mismatch(spec: TensorSpec, given: str, array: Any) -> errors.InputError:
    return errors.InputError(
        f"input {spec.name!r}: expected {expected(spec)}, got {given} of shape {_shape(array.shape)}"
    )


def expected(spec: TensorSpec) -> str:
    """Type and shape, for a message."""
    return f"{spec.dtype} of shape {_shape(spec.shape)}"


def _shape(shape: Sequence[Any]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def listing(inputs: Sequence[TensorSpec]) -> str:
    """All inputs, for a message."""
    return ", ".join(f"{item.name!r} {expected(item)}" for item in inputs)


def _word(array: Any) -> str:
    words = {"f": "floats", "i": "integers", "u": "integers", "b": "booleans", "U": "strings"}
    return words.get(array.dtype.kind, "mixed values")


def _kind(value: Any) -> str:
    words = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return words.get(type(value), "a number")


def encode(value: Any) -> Any:
    """One output as plain data. NaN and infinities become null when they are written as JSON."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def predicted_labels(outputs: Sequence[Any], labels: Sequence[str]) -> list[str] | None:
    """Class names for a classifier's answer: from its class indices, its own strings, or the largest of
    its scores; None when the outputs are none of these."""
    for value in outputs:
        if (
            isinstance(value, np.ndarray)
            and value.ndim in (1, 2)
            and (value.ndim == 1 or value.shape[1] == 1)
        ):
            flat = value.reshape(-1)
            if value.dtype.kind in "iu" and ((flat >= 0) & (flat < len(labels))).all():
                return [labels[int(index)] for index in flat]
            if value.dtype.kind == "O" and all(isinstance(item, str) for item in flat):
                return flat.tolist()
    for value in outputs:
        if (
            isinstance(value, np.ndarray)
            and value.dtype.kind == "f"
            and value.ndim == 2
            and value.shape[1] == len(labels)
        ):
            return [labels[int(index)] for index in value.argmax(axis=1)]
    return None


def example(interface: Interface) -> str:
    """A body that the model takes, for people who try it for the first time."""
    if len(interface.inputs) == 1:
        spec = interface.inputs[0]
        if interface.columns:
            value = _EXAMPLE_VALUES.get(spec.dtype, "0")
            return "{" + ", ".join(f'"{item.name}": {value}' for item in interface.columns) + "}"
        body = _example_of(spec)
        return body[1:-1] if len(spec.shape) == 2 else body
    return '{"inputs": {' + ", ".join(f'"{i.name}": {_example_of(i)}' for i in interface.inputs) + "}}"


def _example_of(spec: TensorSpec) -> str:
    text = _EXAMPLE_VALUES.get(spec.dtype, "0.0" if DTYPES[spec.dtype] in _FLOATS else "0")
    for size in reversed(spec.shape):
        count = size if isinstance(size, int) and size > 0 else 1
        text = "[" + ", ".join([text] * count) + "]"
        if len(text) > 2000:
            return "[…]"
    return text
