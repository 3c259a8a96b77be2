"""Values of a request as the baseline takes them: numbers in float64, words as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeflow_agent import errors
from edgeflow_agent.drift.bins import Floats

Column = npt.NDArray[Any] | Sequence[Any]


def numbers(values: Column) -> Floats:
    """A column in float64, NaN where a value is missing or no number. Raise InputError for more than one
    axis."""
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise errors.InputError(f"a feature is one column, not an array of {values.ndim} axes")
        if values.dtype.kind in "iuf":
            # A long double beyond float64 becomes infinite, and counts as that.
            with np.errstate(over="ignore"):
                return values.astype(np.float64)
    return np.array([_number(value) for value in values], dtype=np.float64)


def words(values: Column) -> list[str]:
    """The text of each value that is not missing, as the baseline writes it."""
    return [text(value) for value in values if not is_missing(value)]


def _number(value: Any) -> float:
    if isinstance(value, (str, bytes)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return math.nan


def text(value: Any) -> str:
    """A value that is no number, as the baseline writes it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    # A lone surrogate cannot be written as UTF-8.
    return str(value).encode("utf-8", "replace").decode()


def is_missing(value: Any) -> bool:
    """Whether there is no value: None, NaN, NaT, NA."""
    # NaN, NaT and pandas' NA differ from themselves, or refuse to say.
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return True
