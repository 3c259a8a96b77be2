"""What one feature was in one window, in the bins of its baseline.

Everything is a count, a sum or an extreme, so that windows of hours, devices and fleets merge into what a
single sketch over all their values would hold. Memory does not grow with the number of values.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.drift import bins, columns
from edgeflow_agent.drift.baseline import LARGEST, Categorical, Distribution, Feature, Numeric
from edgeflow_agent.drift.bins import Floats, Ints
from edgeflow_agent.drift.columns import Column
from edgeflow_agent.drift.counters import Counters
from edgeflow_agent.drift.moments import Moments


class Tail:
    """Values beyond one end of the fine bins: how many, and the sum of their distances from that end.

    Distances and not values are summed: none is negative, so however large one is, none cancels another.
    """

    __slots__ = ("count", "excess")

    def __init__(self, count: int = 0, excess: float = 0.0) -> None:
        self.count = count
        self.excess = excess

    def add(self, count: int, excess: float) -> None:
        """Add as many values, as far from the end in sum."""
        self.count += count
        self.excess += excess


class NumericSketch:
    """A window of numbers.

    `n` counts all values with the `missing` and the infinite ones (`inf`, also what is beyond 1e100). Of the
    others: `min` and `max` (inf and -inf without any), their `moments`, and those with every value moved to
    the nearer end of the fine bins where it lies outside (`inner`). `fine`, `quantiles`, `values` and
    `points` count in the cells of `bins`; the last two are empty when the baseline has no such values, and
    all are when no value of the baseline was finite.
    """

    __slots__ = (
        "above", "below", "feature", "fine", "inf", "inner", "max", "min", "missing", "moments", "n",
        "points", "quantiles", "values",
    )  # fmt: skip

    def __init__(self, feature: Numeric) -> None:
        self.feature = feature
        self.n = self.missing = self.inf = 0
        self.min, self.max = math.inf, -math.inf
        self.moments = self.inner = Moments()
        self.below, self.above = Tail(), Tail()
        seen = feature.distribution
        self.fine = Counters(bins.FINE_BINS if seen else 0)
        self.quantiles = Counters(bins.quantile_cell_count(seen.edges) if seen else 0)
        self.values = Counters(seen.values.size + 1 if seen and seen.values.size else 0)
        self.points = Counters(2 * seen.points.size + 1 if seen and seen.points.size else 0)

    @property
    def finite(self) -> int:
        """How many values are neither missing nor infinite."""
        return self.n - self.missing - self.inf

    @property
    def nbytes(self) -> int:
        """The memory of all counters."""
        return sum(part.nbytes for part in (self.fine, self.quantiles, self.values, self.points))

    def fold(self, values: Column) -> None:
        """Count a column of values: an array of one axis or a list. None, NaN and what is no number are
        missing. Raise InputError for more axes."""
        numbers = columns.numbers(values)
        absent = np.isnan(numbers)
        beyond = np.abs(numbers) > LARGEST
        # Sorted, values are found among edges in half the time.
        finite = np.sort(numbers[~(absent | beyond)])
        self.n += numbers.size
        self.missing += int(absent.sum())
        self.inf += int(beyond.sum())
        if finite.size == 0:
            return
        self.min = min(self.min, float(finite[0]))
        self.max = max(self.max, float(finite[-1]))
        moments = Moments.of(finite)
        self.moments = self.moments.merge(moments)
        seen = self.feature.distribution
        if seen is not None:
            self._count(finite, moments, seen)

    def merge(self, other: NumericSketch) -> None:
        """Add what another sketch against the same baseline holds. Raise ContractError when it is another."""
        if not _same_bins(self.feature, other.feature):
            raise _other_baseline(self.feature.name, other.feature.name)
        self.n += other.n
        self.missing += other.missing
        self.inf += other.inf
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)
        self.moments = self.moments.merge(other.moments)
        self.inner = self.inner.merge(other.inner)
        self.below.add(other.below.count, other.below.excess)
        self.above.add(other.above.count, other.above.excess)
        for mine, its in zip(self._parts(), other._parts(), strict=True):
            mine.add(its.dense())

    def _count(self, finite: Floats, moments: Moments, seen: Distribution) -> None:
        low, high = seen.fine_low, seen.fine_high
        below, above = finite[finite < low], finite[finite > high]
        self.below.add(below.size, float((low - below).sum()))
        self.above.add(above.size, float((above - high).sum()))
        inside = not below.size and not above.size
        self.inner = self.inner.merge(moments if inside else Moments.of(np.clip(finite, low, high)))
        for part, cells in zip(self._parts(), cells_of(finite, seen), strict=True):
            if part.size:
                part.tally(cells)

    def _parts(self) -> tuple[Counters, ...]:
        return self.fine, self.quantiles, self.values, self.points


class CategoricalSketch:
    """A window of words: `n` of them with the `missing` ones, `counts` for each category of the baseline in
    its order, and how many are none of them (`other`)."""

    __slots__ = ("counts", "feature", "missing", "n", "other")

    def __init__(self, feature: Categorical) -> None:
        self.feature = feature
        self.n = self.missing = self.other = 0
        self.counts = Counters(len(feature.categories))

    @property
    def present(self) -> int:
        """How many values are not missing."""
        return self.n - self.missing

    @property
    def nbytes(self) -> int:
        """The memory of all counters."""
        return self.counts.nbytes

    def fold(self, values: Column) -> None:
        """Count a column of values, each as the text that the baseline has for it."""
        present = columns.words(values)
        self.n += len(values)
        self.missing += len(values) - len(present)
        counts = np.zeros(self.counts.size, dtype=np.int64)
        for name, count in Counter(present).items():
            place = self.feature.index.get(name)
            if place is None:
                self.other += count
            else:
                counts[place] += count
        self.counts.add(counts)

    def merge(self, other: CategoricalSketch) -> None:
        """Add what another sketch against the same baseline holds. Raise ContractError when it is another."""
        if self.feature.categories != other.feature.categories:
            raise _other_baseline(self.feature.name, other.feature.name)
        self.n += other.n
        self.missing += other.missing
        self.other += other.other
        self.counts.add(other.counts.dense())


Sketch = NumericSketch | CategoricalSketch


def empty(feature: Feature) -> Sketch:
    """The sketch of a window in which nothing was seen yet."""
    return NumericSketch(feature) if isinstance(feature, Numeric) else CategoricalSketch(feature)


def merge(total: Sketch, added: Sketch) -> None:
    """Add what the second holds to the first. Raise ContractError when they are of different baselines."""
    match total, added:
        case NumericSketch(), NumericSketch():
            total.merge(added)
        case CategoricalSketch(), CategoricalSketch():
            total.merge(added)
        case _:
            raise _other_baseline(total.feature.name, added.feature.name)


def cells_of(finite: Floats, seen: Distribution) -> tuple[Ints, Ints, Ints, Ints]:
    """For each finite value its fine cell, its quantile cell, and its cells among the discrete values and
    the reference points (of no meaning where the baseline has none)."""
    none = np.zeros(0, dtype=np.int64)
    return (
        bins.fine_cells(finite, seen.fine_low, seen.fine_high),
        bins.quantile_cells(finite, seen.edges),
        bins.value_cells(finite, seen.values) if seen.values.size else none,
        bins.point_cells(finite, seen.points) if seen.points.size else none,
    )


def _same_bins(one: Numeric, two: Numeric) -> bool:
    if one is two:
        return True
    mine, its = one.distribution, two.distribution
    if mine is None or its is None:
        return mine is its
    return (
        (mine.fine_low, mine.fine_high) == (its.fine_low, its.fine_high)
        and np.array_equal(mine.edges, its.edges)
        and np.array_equal(mine.values, its.values)
        and np.array_equal(mine.points, its.points)
    )


def _other_baseline(mine: str, its: str) -> errors.ContractError:
    return errors.ContractError(
        f"windows of {mine!r} and {its!r} cannot be merged: they were counted against different baselines"
    )
