"""A window of words beside those of its baseline."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from edgeflow_agent.drift import distances, groups
from edgeflow_agent.drift.measures import Measure, Statistic
from edgeflow_agent.drift.numeric import Distance, Pair
from edgeflow_agent.drift.sketch import CategoricalSketch


class CategoricalComparison:
    """Both sides; each must have words, `n` of the window and `reference_n` of the baseline."""

    def __init__(self, sketch: CategoricalSketch) -> None:
        self.sketch = sketch
        self.n = sketch.present
        self.reference_n = sketch.feature.n - sketch.feature.missing

    def measure(self, statistic: Statistic) -> Measure | None:
        """A statistic, or None where there is none of that name for words."""
        compute = _MEASURES.get(statistic)
        return compute(self) if compute is not None else None

    @functools.cached_property
    def categories(self) -> Pair:
        """The counts of each category, and last of all words that the baseline does not list."""
        feature, sketch = self.sketch.feature, self.sketch
        return np.append(feature.counts, feature.other), np.append(sketch.counts.dense(), sketch.other)

    @functools.cached_property
    def groups(self) -> Pair:
        """The counts in groups that are large enough for a test of these two sizes."""
        place = groups.of_names(self.categories[0], self.n)
        return groups.summed(self.categories[0], place), groups.summed(self.categories[1], place)

    def over_categories(self, distance: Distance, lumps: bool) -> Measure:
        """A distance over the categories; `lumps` says that it would be another if each word that the
        baseline does not list had a bin of its own."""
        reference, current = self.categories
        if not reference[-1] and not current[-1]:
            return Measure(distance(reference[:-1], current[:-1]))
        # Words not listed may be different ones on both sides, which only the baseline's own can hide.
        known = not reference[-1] and (not lumps or bool(current[-1] == 1))
        return Measure(distance(reference, current), approx=not known)

    def over_groups(self) -> Measure | None:
        """The stability index over groups; none where there is only one."""
        return Measure(distances.psi(*self.groups)) if self.groups[0].size > 1 else None


def _over(distance: Distance, *, lumps: bool) -> Callable[[CategoricalComparison], Measure]:
    return lambda of: of.over_categories(distance, lumps)


_MEASURES: dict[Statistic, Callable[[CategoricalComparison], Measure | None]] = {
    Statistic.PSI_CATEGORIES: _over(distances.psi, lumps=True),
    Statistic.KL_NAT_CATEGORIES: _over(distances.kl_nat, lumps=True),
    Statistic.JS_DISTANCE_NAT_CATEGORIES: _over(distances.js_distance_nat, lumps=False),
    Statistic.TOTAL_VARIATION_CATEGORIES: _over(distances.total_variation, lumps=False),
    Statistic.CHI_SQUARE_P_CATEGORIES: _over(distances.chi_square_p, lumps=False),
    Statistic.PSI_GROUPS: CategoricalComparison.over_groups,
}
