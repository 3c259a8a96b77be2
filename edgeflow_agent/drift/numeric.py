"""Windows of numbers beside the numbers of their baseline."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from edgeflow_agent.drift import bins, distances, groups, knots
from edgeflow_agent.drift.baseline import Distribution
from edgeflow_agent.drift.bins import Floats, Ints
from edgeflow_agent.drift.distances import Numbers
from edgeflow_agent.drift.measures import Bools, Measures, Statistic
from edgeflow_agent.drift.stack import NumericStack

# Evidently's: a constant has no deviation to measure in.
LEAST_STD = 0.001
# Rows of fine bins that fit into the processor's cache.
_BLOCK = 32

Pair = tuple[Ints, Ints]
Distance = Callable[[Ints, Ints], Numbers]


class Grouped(NamedTuple):
    """Those windows that are compared over the same groups of cells."""

    rows: Ints
    reference: Ints
    current: Ints


class NumericComparison:
    """Both sides; each must have finite values, `n` of the windows and `reference_n` of the baseline.
    Distances are measured in `unit`: the baseline's standard deviation, at least LEAST_STD."""

    def __init__(self, stack: NumericStack, seen: Distribution) -> None:
        self.stack = stack
        self.seen = seen
        self.unit = max(seen.std, LEAST_STD)
        self.n, self.reference_n = stack.finite, seen.n
        self._measured: dict[Statistic, Measures | None] = {}

    def measure(self, statistic: Statistic) -> Measures | None:
        """A statistic, or None where there is none of that name for these numbers."""
        if statistic not in self._measured:
            compute = _MEASURES.get(statistic)
            self._measured[statistic] = compute(self) if compute is not None else None
        return self._measured[statistic]

    @functools.cached_property
    def values(self) -> Pair:
        """The counts of each value of a discrete baseline, and last those of all others."""
        return np.append(self.seen.value_counts, 0), self.stack.values

    @functools.cached_property
    def groups(self) -> list[Grouped]:
        """The counts in groups that are large enough for a test of these sizes."""
        if self.seen.values.size:
            reference, current = self.values
            return over_names(reference, current, self.n)
        found = []
        numbers = groups.number_of_ordered(self.reference_n, self.n)
        for number in set(numbers.tolist()):
            rows = (numbers == number).nonzero()[0]
            summed, starts = _neighbours(self.seen, number)
            mine = self.stack.quantiles if rows.size == self.n.size else self.stack.quantiles[rows]
            found.append(Grouped(rows, summed, np.add.reduceat(mine, starts, axis=1)))
        return found

    @functools.cached_property
    def quantile_bins(self) -> Pair:
        """The counts of the baseline's bins. What lies outside is in the outer ones; where all values of the
        baseline are equal, it is in two bins of its own."""
        reference, current = self.seen.counts, self.stack.quantiles
        if self.seen.edges.size == 1:
            return np.pad(reference, 1), current
        inner = current[:, 1:-1].copy()
        inner[:, 0] += current[:, 0]
        inner[:, -1] += current[:, -1]
        return reference, inner

    @functools.cached_property
    def sturges_bins(self) -> list[Pair]:
        """About the counts that Evidently would compare, of each window: their bins differ."""
        return [
            self._over_sturges_edges(row, low, high, winsorised=False)
            for row, (low, high) in enumerate(
                zip(self.stack.min.tolist(), self.stack.max.tolist(), strict=True)
            )
        ]

    @functools.cached_property
    def sturges_bins_winsorised(self) -> list[Pair]:
        """The same with all values in the range of the fine bins."""
        low, high = self.seen.fine_low, self.seen.fine_high
        found = []
        for row in range(self.n.size):
            if not self.stack.below[row] and not self.stack.above[row]:
                found.append(self.sturges_bins[row])
                continue
            ends = (
                min(max(float(self.stack.min[row]), low), high),
                max(min(float(self.stack.max[row]), high), low),
            )
            found.append(self._over_sturges_edges(row, *ends, winsorised=True))
        return found

    def shift(self, mean: Floats) -> Measures:
        """The difference of the means in standard deviations of the baseline."""
        return Measures((mean - self.seen.mean) / self.unit)

    def ratio(self, m2: Floats) -> Measures | None:
        """The window's standard deviation in those of the baseline; none of a constant's."""
        return Measures(np.sqrt(m2 / self.n) / self.unit) if self.seen.std else None

    def over_sturges(self, distance: Distance, winsorised: bool) -> Measures | None:
        """A distance over Evidently's bins, which it does not use for up to 20 values."""
        if self.seen.values.size or self.seen.edges.size == 1:
            return None
        pairs = self.sturges_bins_winsorised if winsorised else self.sturges_bins
        return Measures(np.array([distance(*pair) for pair in pairs]), approx=True)

    def over_values(self, distance: Distance, lumps: bool) -> Measures | None:
        """A distance over the values of a discrete baseline; `lumps` says that it would be another if each
        unseen value had a bin of its own."""
        if not self.seen.values.size:
            return None
        unseen = self.stack.values[:, -1]
        return Measures(over_used(distance, *self.values, unseen > 0), approx=(unseen > 1) & lumps)

    def over_groups(self) -> Measures:
        """The stability index over groups; none where there is only one."""
        return Measures(index_over(self.groups, self.n.size))

    def wasserstein(self, winsorised: bool) -> Measures:
        """How far the values would have to be moved, in standard deviations of the baseline."""
        seen = self.seen
        if not seen.values.size:
            return Measures(self._moved(winsorised) / self.unit, approx=True)
        unseen = self.stack.values[:, -1] > 0
        known = distances.wasserstein_of_values(
            seen.value_counts, np.where(unseen[:, None], 1, self.stack.values[:, :-1]), seen.values
        )
        moved = self._moved(winsorised) if unseen.any() else known
        return Measures(np.where(unseen, moved, known) / self.unit, approx=unseen)

    def _moved(self, winsorised: bool) -> Floats:
        """The distance by the fine bins."""
        stack = self.stack
        moved = self._apart[1] * self.width
        # From the centre of an outer bin to its outer edge, and on to where the values are.
        moved += (stack.below + stack.above) / self.n * (self.width / 2)
        if not winsorised:
            moved += (stack.below_excess + stack.above_excess) / self.n
        return moved

    def ks(self) -> Measures:
        """The largest difference of the cumulative shares: exact while the baseline keeps its values, else
        the largest at the edges of all bins, so never too large."""
        seen, n = self.seen, self.n[:, None]
        if seen.points.size:
            at, before = _at_points(seen)
            current = np.cumsum(self.stack.points, axis=1) / n
            # Between two points the baseline is flat: what matters is where each stretch begins and ends.
            starts = distances.ks_distance(at, current[:, 1::2])
            return Measures(np.maximum(starts, distances.ks_distance(before, current[:, ::2])))
        if not seen.values.size:
            return Measures(self._ks_at_edges(), approx=True)
        unseen = self.stack.values[:, -1] > 0
        shares = np.cumsum(self.stack.values[:, :-1], axis=1) / n
        known = distances.ks_distance(np.cumsum(seen.value_counts) / self.reference_n, shares)
        edges = self._ks_at_edges() if unseen.any() else known
        return Measures(np.where(unseen, edges, known), approx=unseen)

    def _ks_at_edges(self) -> Floats:
        places = np.cumsum(self.stack.quantiles, axis=1) / self.n[:, None]
        return np.maximum(self._apart[0], distances.ks_distance(_cumulated(self.seen)[1], places))

    @property
    def width(self) -> float:
        """The width of a fine bin."""
        return (self.seen.fine_high - self.seen.fine_low) / bins.FINE_BINS

    @functools.cached_property
    def _apart(self) -> tuple[Floats, Floats]:
        """How far the shares of both sides up to the end of each fine bin are apart: the most, and the sum
        over all but the last."""
        most, total = np.zeros(self.n.size), np.zeros(self.n.size)
        for start in range(0, self.n.size, _BLOCK):
            rows = slice(start, start + _BLOCK)
            apart = np.cumsum(self.stack.fine[rows], axis=1) / self.n[rows, None]
            np.subtract(_cumulated(self.seen)[0], apart, out=apart)
            np.abs(apart, out=apart)
            most[rows], total[rows] = apart.max(axis=1), apart[:, :-1].sum(axis=1)
        return most, total

    def _over_sturges_edges(self, row: int, low: float, high: float, *, winsorised: bool) -> Pair:
        seen, n = self.seen, int(self.n[row])
        edges = bins.sturges_edges(min(low, seen.min), max(high, seen.max), n + self.reference_n)
        if seen.reference.size:
            reference = np.histogram(seen.reference, edges)[0]
        else:
            reference = bins.rebinned(edges, *knots.of_reference(seen))
        window = self.stack.sketch(row)
        return reference, bins.rebinned(edges, *knots.of_window(window, seen, winsorised=winsorised))


def over_used(distance: Distance, reference: Ints, current: Ints, last: Bools) -> Floats:
    """A distance of each row, with the last cell only where it is used."""
    found = np.zeros(last.size)
    for rows, cells in ((np.flatnonzero(last), slice(None)), (np.flatnonzero(~last), slice(-1))):
        if rows.size:
            found[rows] = distance(reference[cells], current[rows, cells])
    return found


def over_names(reference: Ints, current: Ints, n: Ints) -> list[Grouped]:
    """Windows of n values in groups of the cells that are common enough: the same ones for many of them."""
    found = []
    for rows, place in groups.of_names(reference, n):
        found.append(Grouped(rows, groups.summed(reference, place), groups.summed(current[rows], place)))
    return found


def index_over(parts: Sequence[Grouped], count: int) -> Floats:
    """The stability index of each window over its groups; NaN where there is only one."""
    found = np.full(count, math.nan)
    for part in parts:
        if part.reference.size > 1:
            found[part.rows] = distances.psi(part.reference, part.current)
    return found


@functools.lru_cache(maxsize=1024)
def _neighbours(seen: Distribution, number: int) -> Pair:
    """The baseline's counts in so many groups of its quantile cells, and where each begins: the same for
    all windows of about one size."""
    cells = np.pad(seen.counts, 1)
    place = groups.of_order(cells, number)
    return groups.summed(cells, place), np.flatnonzero(np.diff(place, prepend=-1))


@functools.lru_cache(maxsize=1024)
def _at_points(seen: Distribution) -> tuple[Floats, Floats]:
    """The baseline's shares at each of its points, and before each and after the last."""
    at = np.searchsorted(seen.reference, seen.points, side="right") / seen.n
    return at, np.concatenate(([0.0], at))


@functools.lru_cache(maxsize=1024)
def _cumulated(seen: Distribution) -> tuple[Floats, Floats]:
    """The baseline's shares up to the end of each fine cell, and of each quantile cell."""
    return np.cumsum(seen.fine) / seen.n, np.cumsum(np.pad(seen.counts, 1)) / seen.n


def _table() -> dict[Statistic, Callable[[NumericComparison], Measures | None]]:
    psi, kl_nat, js_distance_nat = distances.psi, distances.kl_nat, distances.js_distance_nat
    total_variation = distances.total_variation
    return {
        Statistic.MEAN_SHIFT: lambda of: of.shift(of.stack.mean),
        Statistic.MEAN_SHIFT_WINSORISED: lambda of: of.shift(of.stack.inner_mean),
        Statistic.STD_RATIO: lambda of: of.ratio(of.stack.m2),
        Statistic.STD_RATIO_WINSORISED: lambda of: of.ratio(of.stack.inner_m2),
        Statistic.WASSERSTEIN_PER_STD: lambda of: of.wasserstein(winsorised=False),
        Statistic.WASSERSTEIN_PER_STD_WINSORISED: lambda of: of.wasserstein(winsorised=True),
        Statistic.KS_DISTANCE: lambda of: of.ks(),
        Statistic.PSI_STURGES: lambda of: of.over_sturges(psi, winsorised=False),
        Statistic.KL_NAT_STURGES: lambda of: of.over_sturges(kl_nat, winsorised=False),
        Statistic.JS_DISTANCE_NAT_STURGES: lambda of: of.over_sturges(js_distance_nat, winsorised=False),
        Statistic.PSI_STURGES_WINSORISED: lambda of: of.over_sturges(psi, winsorised=True),
        Statistic.KL_NAT_STURGES_WINSORISED: lambda of: of.over_sturges(kl_nat, winsorised=True),
        Statistic.JS_DISTANCE_NAT_STURGES_WINSORISED: lambda of: of.over_sturges(
            js_distance_nat, winsorised=True
        ),
        Statistic.PSI_QUANTILES: lambda of: Measures(psi(*of.quantile_bins)),
        Statistic.KL_NAT_QUANTILES: lambda of: Measures(kl_nat(*of.quantile_bins)),
        Statistic.JS_DISTANCE_NAT_QUANTILES: lambda of: Measures(js_distance_nat(*of.quantile_bins)),
        Statistic.PSI_VALUES: lambda of: of.over_values(psi, lumps=True),
        Statistic.KL_NAT_VALUES: lambda of: of.over_values(kl_nat, lumps=True),
        Statistic.JS_DISTANCE_NAT_VALUES: lambda of: of.over_values(js_distance_nat, lumps=False),
        Statistic.TOTAL_VARIATION_VALUES: lambda of: of.over_values(total_variation, lumps=False),
        Statistic.CHI_SQUARE_P_VALUES: lambda of: of.over_values(distances.chi_square_p, lumps=False),
        Statistic.PSI_GROUPS: lambda of: of.over_groups(),
    }


_MEASURES = _table()
