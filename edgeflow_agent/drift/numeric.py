"""A window of numbers beside the numbers of its baseline."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from edgeflow_agent.drift import bins, distances, groups, knots
from edgeflow_agent.drift.baseline import Distribution
from edgeflow_agent.drift.bins import Floats, Ints
from edgeflow_agent.drift.measures import Measure, Statistic
from edgeflow_agent.drift.moments import Moments
from edgeflow_agent.drift.sketch import NumericSketch

# Evidently's: a constant has no deviation to measure in.
LEAST_STD = 0.001

Pair = tuple[Ints, Ints]
Distance = Callable[[Ints, Ints], float]


class NumericComparison:
    """Both sides; each must have finite values, `n` of the window and `reference_n` of the baseline.
    Distances are measured in `unit`: the baseline's standard deviation, at least LEAST_STD."""

    def __init__(self, sketch: NumericSketch, seen: Distribution) -> None:
        self.sketch = sketch
        self.seen = seen
        self.unit = max(seen.std, LEAST_STD)
        self.n, self.reference_n = sketch.finite, seen.n

    def measure(self, statistic: Statistic) -> Measure | None:
        """A statistic, or None where there is none of that name for these numbers."""
        compute = _MEASURES.get(statistic)
        return compute(self) if compute is not None else None

    @functools.cached_property
    def values(self) -> Pair:
        """The counts of each value of a discrete baseline, and last those of all others."""
        return np.append(self.seen.value_counts, 0), self.sketch.values.dense()

    @functools.cached_property
    def groups(self) -> Pair:
        """The counts in groups that are large enough for a test of these two sizes."""
        if self.seen.values.size:
            reference, current = self.values
            place = groups.of_names(reference, self.n)
            return groups.summed(reference, place), groups.summed(current, place)
        summed, place = _neighbours(self.seen, groups.number_of_ordered(self.reference_n, self.n))
        return summed, groups.summed(self._quantiles, place)

    @functools.cached_property
    def quantile_bins(self) -> Pair:
        """The counts of the baseline's bins. What lies outside is in the outer ones; where all values of the
        baseline are equal, it is in two bins of its own."""
        reference, current = self.seen.counts, self._quantiles
        if self.seen.edges.size == 1:
            return np.pad(reference, 1), current
        inner = current[1:-1].copy()
        inner[0] += current[0]
        inner[-1] += current[-1]
        return reference, inner

    @functools.cached_property
    def sturges_bins(self) -> Pair:
        """About the counts that Evidently would compare."""
        return self._over_sturges_edges(self.sketch.min, self.sketch.max, winsorised=False)

    @functools.cached_property
    def sturges_bins_winsorised(self) -> Pair:
        """The same with all values in the range of the fine bins."""
        sketch, low, high = self.sketch, self.seen.fine_low, self.seen.fine_high
        if not sketch.below.count and not sketch.above.count:
            return self.sturges_bins
        ends = min(max(sketch.min, low), high), max(min(sketch.max, high), low)
        return self._over_sturges_edges(*ends, winsorised=True)

    def shift(self, moments: Moments) -> Measure:
        """The difference of the means in standard deviations of the baseline."""
        return Measure((moments.mean - self.seen.mean) / self.unit)

    def ratio(self, moments: Moments) -> Measure | None:
        """The window's standard deviation in those of the baseline; none of a constant's."""
        return Measure(moments.std / self.unit) if self.seen.std else None

    def over_sturges(self, distance: Distance, winsorised: bool) -> Measure | None:
        """A distance over Evidently's bins, which it does not use for up to 20 values."""
        if self.seen.values.size or self.seen.edges.size == 1:
            return None
        pair = self.sturges_bins_winsorised if winsorised else self.sturges_bins
        return Measure(distance(*pair), approx=True)

    def over_values(self, distance: Distance, lumps: bool) -> Measure | None:
        """A distance over the values of a discrete baseline; `lumps` says that it would be another if each
        unseen value had a bin of its own."""
        if not self.seen.values.size:
            return None
        reference, current = self.values
        if not current[-1]:
            return Measure(distance(reference[:-1], current[:-1]))
        return Measure(distance(reference, current), approx=lumps and bool(current[-1] > 1))

    def over_groups(self) -> Measure | None:
        """The stability index over groups; none where there is only one."""
        return Measure(distances.psi(*self.groups)) if self.groups[0].size > 1 else None

    def wasserstein(self, winsorised: bool) -> Measure:
        """How far the values would have to be moved, in standard deviations of the baseline."""
        seen, sketch = self.seen, self.sketch
        if seen.values.size and not self.values[1][-1]:
            moved = distances.wasserstein_of_values(seen.value_counts, self.values[1][:-1], seen.values)
            return Measure(moved / self.unit)
        moved = float(self._apart[:-1].sum()) * self.width
        # From the centre of an outer bin to its outer edge, and on to where the values are.
        moved += (sketch.below.count + sketch.above.count) / self.n * self.width / 2
        if not winsorised:
            moved += (sketch.below.excess + sketch.above.excess) / self.n
        return Measure(moved / self.unit, approx=True)

    def ks(self) -> Measure:
        """The largest difference of the cumulative shares: exact while the baseline keeps its values, else
        the largest at the edges of all bins, so never too large."""
        seen, n, m = self.seen, self.n, self.reference_n
        if seen.points.size:
            at = np.searchsorted(seen.reference, seen.points, side="right") / m
            before = np.concatenate(([0.0], at))
            current = np.cumsum(self.sketch.points.dense()) / n
            # Between two points the baseline is flat: what matters is where each stretch begins and ends.
            starts, ends = (
                distances.ks_distance(at, current[1::2]),
                distances.ks_distance(before, current[::2]),
            )
            return Measure(max(starts, ends))
        if seen.values.size and not self.values[1][-1]:
            known, found = (np.cumsum(counts[:-1]) for counts in self.values)
            return Measure(distances.ks_distance(known / m, found / n))
        at_places = distances.ks_distance(_cumulated(seen)[1], self._quantiles.cumsum() / n)
        return Measure(max(float(self._apart.max()), at_places), approx=True)

    @property
    def width(self) -> float:
        """The width of a fine bin."""
        return (self.seen.fine_high - self.seen.fine_low) / bins.FINE_BINS

    @functools.cached_property
    def _quantiles(self) -> Ints:
        return self.sketch.quantiles.dense()

    @functools.cached_property
    def _apart(self) -> Floats:
        """How far the shares of both sides up to the end of each fine bin are apart."""
        apart: Floats = np.abs(_cumulated(self.seen)[0] - self.sketch.fine.dense().cumsum() / self.n)
        return apart

    def _over_sturges_edges(self, low: float, high: float, *, winsorised: bool) -> Pair:
        seen = self.seen
        edges = bins.sturges_edges(min(low, seen.min), max(high, seen.max), self.n + self.reference_n)
        if seen.reference.size:
            reference = np.histogram(seen.reference, edges)[0]
        else:
            reference = bins.rebinned(edges, *knots.of_reference(seen))
        return reference, bins.rebinned(edges, *knots.of_window(self.sketch, seen, winsorised=winsorised))


@functools.lru_cache(maxsize=1024)
def _neighbours(seen: Distribution, number: int) -> Pair:
    """The baseline's counts in so many groups of its quantile cells, and the group of each cell: the same for
    every window of about one size."""
    cells = np.pad(seen.counts, 1)
    place = groups.of_order(cells, number)
    return groups.summed(cells, place), place


@functools.lru_cache(maxsize=1024)
def _cumulated(seen: Distribution) -> tuple[Floats, Floats]:
    """The baseline's shares up to the end of each fine cell, and of each quantile cell."""
    return np.cumsum(seen.fine) / seen.n, np.cumsum(np.pad(seen.counts, 1)) / seen.n


def _table() -> dict[Statistic, Callable[[NumericComparison], Measure | None]]:
    psi, kl_nat, js_distance_nat = distances.psi, distances.kl_nat, distances.js_distance_nat
    total_variation = distances.total_variation
    return {
        Statistic.MEAN_SHIFT: lambda of: of.shift(of.sketch.moments),
        Statistic.MEAN_SHIFT_WINSORISED: lambda of: of.shift(of.sketch.inner),
        Statistic.STD_RATIO: lambda of: of.ratio(of.sketch.moments),
        Statistic.STD_RATIO_WINSORISED: lambda of: of.ratio(of.sketch.inner),
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
        Statistic.PSI_QUANTILES: lambda of: Measure(psi(*of.quantile_bins)),
        Statistic.KL_NAT_QUANTILES: lambda of: Measure(kl_nat(*of.quantile_bins)),
        Statistic.JS_DISTANCE_NAT_QUANTILES: lambda of: Measure(js_distance_nat(*of.quantile_bins)),
        Statistic.PSI_VALUES: lambda of: of.over_values(psi, lumps=True),
        Statistic.KL_NAT_VALUES: lambda of: of.over_values(kl_nat, lumps=True),
        Statistic.JS_DISTANCE_NAT_VALUES: lambda of: of.over_values(js_distance_nat, lumps=False),
        Statistic.TOTAL_VARIATION_VALUES: lambda of: of.over_values(total_variation, lumps=False),
        Statistic.CHI_SQUARE_P_VALUES: lambda of: of.over_values(distances.chi_square_p, lumps=False),
        Statistic.PSI_GROUPS: lambda of: of.over_groups(),
    }


_MEASURES = _table()
