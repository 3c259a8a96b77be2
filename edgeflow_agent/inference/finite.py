"""Whether what a model gave is made of numbers: a NaN or an infinity is no answer that a caller can use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def all_finite(outputs: Iterable[Any]) -> bool:
    """Whether no floating-point value among the outputs is a NaN or an infinity. Integers, text and absent
    outputs have none; lists and maps (what classifiers end with) are looked through."""
    return all(_is_finite(item) for item in outputs)


def _is_finite(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if isinstance(value, float):
        return bool(np.isfinite(value))
    if isinstance(value, Mapping):
        return all_finite(value.values())
    if isinstance(value, (list, tuple)):
        return all_finite(value)
    return True
