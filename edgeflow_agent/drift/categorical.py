"""Windows of words beside those of their baseline."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from edgeflow_agent.drift import distances
from edgeflow_agent.drift.measures import Measures, Statistic
from edgeflow_agent.drift.numeric import Distance, Grouped, Pair, index_over, over_names, over_used
from edgeflow_agent.drift.stack import CategoricalStack


class CategoricalComparison:
    """Both sides; each must have words, `n` of the windows and `reference_n` of the baseline."""

    def __init__(self, stack: CategoricalStack) -> None:
        self.stack = stack
        self.n = stack.present
        self.reference_n = stack.feature.n - stack.feature.missing

    def measure(self, statistic: Statistic) -> Measures | None:
        """A statistic, or None where there is none of that name for words."""
        compute = _MEASURES.get(statistic)
        return compute(self) if compute is not None else None

    @functools.cached_property
    def categories(self) -> Pair:
        """The counts of each category, and last of all words that the baseline does not list."""
        feature, stack = self.stack.feature, self.stack
        return np.append(feature.counts, feature.other), np.column_stack((stack.counts, stack.other))

    @functools.cached_property
    def groups(self) -> list[Grouped]:
        """The counts in groups that are large enough for a test of these sizes."""
        return over_names(*self.categories, self.n)

    def over_categories(self, distance: Distance, lumps: bool) -> Measures:
        """A distance over the categories; `lumps` says that it would be another if each word that the
        baseline does not list had a bin of its own."""
        other, unlisted = self.stack.feature.other, self.stack.other
        last = (unlisted > 0) | (other > 0)
        # Words not listed may be different ones on both sides, which only the baseline's own can hide.
        known = ~last | ((other == 0) & ((unlisted == 1) | (not lumps)))
        return Measures(over_used(distance, *self.categories, last), approx=~known)

    def over_groups(self) -> Measures:
        """The stability index over groups; none where there is only one."""
        return Measures(index_over(self.groups, self.n.size))


def _over(distance: Distance, *, lumps: bool) -> Callable[[CategoricalComparison], Measures]:
    return lambda of: of.over_categories(distance, lumps)


_MEASURES: dict[Statistic, Callable[[CategoricalComparison], Measures]] = {
    Statistic.PSI_CATEGORIES: _over(distances.psi, lumps=True),
    Statistic.KL_NAT_CATEGORIES: _over(distances.kl_nat, lumps=True),
    Statistic.JS_DISTANCE_NAT_CATEGORIES: _over(distances.js_distance_nat, lumps=False),
    Statistic.TOTAL_VARIATION_CATEGORIES: _over(distances.total_variation, lumps=False),
    Statistic.CHI_SQUARE_P_CATEGORIES: _over(distances.chi_square_p, lumps=False),
    Statistic.PSI_GROUPS: CategoricalComparison.over_groups,
}
