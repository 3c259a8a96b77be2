"""Windows of one feature, a row for each: what is computed of one window is computed of many at once.

A server judges thousands of windows in a minute, and numpy's calls cost more than what they compute of one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeflow_agent.drift import moments
from edgeflow_agent.drift.baseline import Categorical, Numeric
from edgeflow_agent.drift.bins import Floats, Ints
from edgeflow_agent.drift.counters import Counters
from edgeflow_agent.drift.moments import Moments
from edgeflow_agent.drift.sketch import CategoricalSketch, NumericSketch, Sketch, Tail

Rows = Any  # whatever picks rows of an array: an index, a slice, a mask


@dataclass(frozen=True, kw_only=True, eq=False)
class NumericStack:
    """Windows of numbers, each what a `NumericSketch` holds: `mean` and `m2` of all finite values, those with
    `inner_` of the values in the range of the fine bins. Without finite values they are 0, `min` is inf and
    `max` -inf. Counts have two axes: windows and cells."""

    feature: Numeric
    n: Ints
    missing: Ints
    inf: Ints
    min: Floats
    max: Floats
    mean: Floats
    m2: Floats
    inner_mean: Floats
    inner_m2: Floats
    below: Ints
    below_excess: Floats
    above: Ints
    above_excess: Floats
    fine: Ints
    quantiles: Ints
    values: Ints
    points: Ints

    @property
    def finite(self) -> Ints:
        """How many values of each window are neither missing nor infinite."""
        return self.n - self.missing - self.inf

    def take(self, rows: Rows) -> NumericStack:
        """Some of the windows."""
        return NumericStack(feature=self.feature, **{name: array[rows] for name, array in _arrays(self)})

    def sketch(self, row: int) -> NumericSketch:
        """One of the windows."""
        made = NumericSketch(self.feature)
        made.n, made.missing, made.inf = int(self.n[row]), int(self.missing[row]), int(self.inf[row])
        made.min, made.max = float(self.min[row]), float(self.max[row])
        finite = made.finite
        if finite:
            made.moments = Moments(finite, float(self.mean[row]), float(self.m2[row]))
            if self.feature.distribution is not None:
                made.inner = Moments(finite, float(self.inner_mean[row]), float(self.inner_m2[row]))
        made.below = Tail(int(self.below[row]), float(self.below_excess[row]))
        made.above = Tail(int(self.above[row]), float(self.above_excess[row]))
        made.fine, made.quantiles = _counters(self.fine[row]), _counters(self.quantiles[row])
        made.values, made.points = _counters(self.values[row]), _counters(self.points[row])
        return made

    def summed(self) -> NumericStack:
        """One window over all."""
        rows = np.zeros(self.n.size, dtype=np.int64)
        mean, m2 = moments.together(self.finite, self.mean, self.m2, rows, 1)
        inner_mean, inner_m2 = moments.together(self.finite, self.inner_mean, self.inner_m2, rows, 1)
        low, high = self.min.min(initial=math.inf), self.max.max(initial=-math.inf)
        if low <= high:
            # Rounding must not bring a mean out of its range.
            mean = mean.clip(low, high)
        sums = {name: array.sum(axis=0, keepdims=True) for name, array in _arrays(self)}
        return NumericStack(
            feature=self.feature,
            **sums
            | {
                "min": np.array([low]),
                "max": np.array([high]),
                "mean": mean,
                "m2": m2,
                "inner_mean": inner_mean,
                "inner_m2": inner_m2,
            },
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class CategoricalStack:
    """Windows of words, each what a `CategoricalSketch` holds."""

    feature: Categorical
    n: Ints
    missing: Ints
    other: Ints
    counts: Ints

    @property
    def present(self) -> Ints:
        """How many values of each window are not missing."""
        return self.n - self.missing

    def take(self, rows: Rows) -> CategoricalStack:
        """Some of the windows."""
        return CategoricalStack(feature=self.feature, **{name: array[rows] for name, array in _arrays(self)})

    def sketch(self, row: int) -> CategoricalSketch:
        """One of the windows."""
        made = CategoricalSketch(self.feature)
        made.n, made.missing, made.other = int(self.n[row]), int(self.missing[row]), int(self.other[row])
        made.counts = _counters(self.counts[row])
        return made

    def summed(self) -> CategoricalStack:
        """One window over all."""
        sums = {name: array.sum(axis=0, keepdims=True) for name, array in _arrays(self)}
        return CategoricalStack(feature=self.feature, **sums)


Stack = NumericStack | CategoricalStack


def of(sketches: Sequence[Sketch]) -> Stack:
    """Windows of one feature, at least one."""
    words = [item for item in sketches if isinstance(item, CategoricalSketch)]
    if words:
        return CategoricalStack(
            feature=words[0].feature,
            n=_whole([item.n for item in words]),
            missing=_whole([item.missing for item in words]),
            other=_whole([item.other for item in words]),
            counts=_rows([item.counts.dense() for item in words]),
        )
    return _of_numbers([item for item in sketches if isinstance(item, NumericSketch)])


def _of_numbers(sketches: Sequence[NumericSketch]) -> NumericStack:
    return NumericStack(
        feature=sketches[0].feature,
        n=_whole([item.n for item in sketches]),
        missing=_whole([item.missing for item in sketches]),
        inf=_whole([item.inf for item in sketches]),
        min=np.array([item.min for item in sketches]),
        max=np.array([item.max for item in sketches]),
        mean=np.array([item.moments.mean for item in sketches]),
        m2=np.array([item.moments.m2 for item in sketches]),
        inner_mean=np.array([item.inner.mean for item in sketches]),
        inner_m2=np.array([item.inner.m2 for item in sketches]),
        below=_whole([item.below.count for item in sketches]),
        below_excess=np.array([item.below.excess for item in sketches]),
        above=_whole([item.above.count for item in sketches]),
        above_excess=np.array([item.above.excess for item in sketches]),
        fine=_rows([item.fine.dense() for item in sketches]),
        quantiles=_rows([item.quantiles.dense() for item in sketches]),
        values=_rows([item.values.dense() for item in sketches]),
        points=_rows([item.points.dense() for item in sketches]),
    )


def joined(one: Stack, two: Stack) -> Stack:
    """The windows of both, which are of one feature."""
    kind: Any = type(one)
    pairs = zip(_arrays(one), _arrays(two), strict=True)
    return kind(  # type: ignore[no-any-return]
        feature=one.feature, **{name: np.concatenate((mine, its)) for (name, mine), (_, its) in pairs}
    )


def _arrays(stack: Stack) -> list[tuple[str, npt.NDArray[Any]]]:
    return [(item.name, getattr(stack, item.name)) for item in dataclasses.fields(stack)[1:]]


def _rows(counts: Sequence[Ints]) -> Ints:
    # A device has one, and its processor is slow.
    return np.stack(counts) if len(counts) > 1 else counts[0][np.newaxis]


def _whole(numbers: Sequence[int]) -> Ints:
    return np.array(numbers, dtype=np.int64)


def _counters(counts: Ints) -> Counters:
    made = Counters(counts.size)
    made.add(counts)
    return made
