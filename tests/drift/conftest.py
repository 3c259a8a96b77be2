"""Baselines out of samples, by the code that writes them, and windows against them."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeflow_agent.drift import baseline_file, sketch
from edgeflow_agent.drift import build as written
from edgeflow_agent.drift.baseline import Categorical, Numeric
from edgeflow_agent.drift.features import Described
from edgeflow_agent.drift.sketch import CategoricalSketch, NumericSketch


def content(**columns: Any) -> bytes:
    """The baseline file of these input columns."""
    return written.encode(written.build([Described(name, values) for name, values in columns.items()]))


def numeric(values: Any) -> Numeric:
    feature = baseline_file.parse(content(x=np.asarray(values, dtype=np.float64))).inputs[0]
    assert isinstance(feature, Numeric)
    return feature


def categorical(values: Any) -> Categorical:
    feature = baseline_file.parse(content(x=np.asarray(values, dtype=object))).inputs[0]
    assert isinstance(feature, Categorical)
    return feature


def window(feature: Numeric, *parts: Any) -> NumericSketch:
    """All parts folded into one window of numbers."""
    made = sketch.empty(feature)
    assert isinstance(made, NumericSketch)
    for part in parts:
        made.fold(part)
    return made


def words(feature: Categorical, *parts: Any) -> CategoricalSketch:
    """All parts folded into one window of words."""
    made = sketch.empty(feature)
    assert isinstance(made, CategoricalSketch)
    for part in parts:
        made.fold(part)
    return made
