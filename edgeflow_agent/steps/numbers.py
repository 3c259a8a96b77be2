"""Plain data to arrays of a declared type, strictly: nothing is rounded, cut or guessed in silence."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.steps.flow import DTYPES, Array

_WORDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bytes: "bytes",
    bool: "a boolean",
    type(None): "null",
}

_MAX_AXES = 32  # NumPy walks through no more


def kind(value: Any) -> str:
    """What a value of JSON is, in words."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    return _WORDS.get(type(value), "a number")


def array(value: Any, dtype: str, what: str) -> Array:
    """`value`, nested lists or an array, as an array of `dtype`; null is NaN among floats."""
    wanted = DTYPES[dtype]
    try:
        given = np.asarray(value, dtype=np.object_ if dtype == "string" else None)
    except (ValueError, TypeError) as error:
        raise errors.InputError(
            f"{what}: rows of different lengths, or something that is no number"
        ) from error
    except OverflowError as error:
        raise errors.InputError(f"{what}: a number is out of range of {dtype}") from error
    if given.ndim > _MAX_AXES:
        raise errors.InputError(f"{what}: nested too deeply")
    if dtype == "string":
        return _strings(given, what)
    if given.size == 0 and given.dtype.kind in "Ofiub":
        return given.astype(wanted)
    if dtype == "bool":
        if given.dtype.kind != "b":
            raise errors.InputError(f"{what}: expected true and false, got {_content(given)}")
        return given
    if given.dtype.kind == "O":
        _refuse_others(given, what)
    elif given.dtype.kind not in "fiu":
        raise errors.InputError(f"{what}: expected numbers, got {_content(given)}")
    return _floats(given, dtype, what) if dtype.startswith("float") else _integers(value, given, dtype, what)


def _strings(given: Array, what: str) -> Array:
    for item in given.flat:
        if not isinstance(item, str):
            raise errors.InputError(f"{what}: expected text, got {kind(item)}")
    return given


def _refuse_others(given: Array, what: str) -> None:
    for item in given.flat:
        if item is not None and (isinstance(item, bool) or not isinstance(item, (int, float))):
            raise errors.InputError(f"{what}: expected numbers, got {kind(item)}")


def _floats(given: Array, dtype: str, what: str) -> Array:
    try:
        exact = given.astype(np.float64) if given.dtype.kind == "O" else given
    except OverflowError as error:
        raise errors.InputError(f"{what}: a number is out of range of {dtype}") from error
    with np.errstate(over="ignore"):
        cast = exact.astype(DTYPES[dtype])
    if (np.isinf(cast) & ~np.isinf(exact)).any():
        raise errors.InputError(f"{what}: a number is out of range of {dtype}")
    return cast


def _integers(value: Any, given: Array, dtype: str, what: str) -> Array:
    if given.dtype.kind == "f":
        # NumPy makes floats of whole numbers on both sides of 2**63: look at what was sent.
        given = np.array(value, dtype=np.object_)
    if given.dtype.kind == "O" and not all(isinstance(item, int) for item in given.flat):
        raise errors.InputError(f"{what}: expected whole numbers")
    limits = np.iinfo(DTYPES[dtype])
    if int(given.min()) < limits.min or int(given.max()) > limits.max:
        raise errors.InputError(f"{what}: a number is out of range of {dtype}")
    return given.astype(DTYPES[dtype])


def _content(given: Array) -> str:
    words = {"b": "true or false", "U": "text", "S": "bytes"}
    return words.get(given.dtype.kind, str(given.dtype))
