"""What the statistics are while nothing has changed: how large by chance alone, and how likely what was seen.

Both samples are finite, the baseline's as well: chance comes from 1/n + 1/n_reference, so that a small window
does not cry, and neither does a small baseline.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from edgeflow_agent.drift import bins, distances, probability
from edgeflow_agent.drift.baseline import Distribution
from edgeflow_agent.drift.bins import Ints
from edgeflow_agent.drift.categorical import CategoricalComparison
from edgeflow_agent.drift.measures import Statistic
from edgeflow_agent.drift.numeric import NumericComparison
from edgeflow_agent.drift.statistics import Comparison


def noise(of: Comparison, statistic: Statistic, p: float) -> float:
    """What a statistic exceeds with a probability of about p, or less, when nothing has changed; 0 for those
    of which it is not known."""
    if isinstance(of, NumericComparison):
        return _numeric_noise(of, statistic, p)
    return _categorical_noise(of, statistic, p)


def tests(of: Comparison) -> dict[Statistic, float]:
    """How likely at least what was seen is while nothing has changed, by tests that suppose nothing about how
    the values are distributed."""
    return _numeric_tests(of) if isinstance(of, NumericComparison) else _categorical_tests(of)


def _numeric_noise(of: NumericComparison, statistic: Statistic, p: float) -> float:
    seen, spread = of.seen, math.sqrt(1 / of.n + 1 / of.reference_n)
    if statistic is Statistic.PSI_GROUPS:
        return _psi_noise(of.groups[0].size, spread, p)
    if statistic is Statistic.TOTAL_VARIATION_VALUES:
        return _total_variation_noise(of.values[0], spread, p)
    if statistic is Statistic.MEAN_SHIFT_WINSORISED:
        return probability.normal_limit(p) * spread * seen.std / of.unit
    if statistic is Statistic.STD_RATIO_WINSORISED:
        # The variance of a variance, by its fourth moment. Downwards a ratio may reach further: a window may
        # have none of the rare values that make most of the deviation.
        part = probability.normal_limit(p) * spread * math.sqrt(_kurtosis(seen, of.unit) - 1)
        wider = of.sketch.inner.std >= seen.std
        return math.sqrt(1 + part) if wider else 1 / math.sqrt(max(1 - part, 1e-6))
    if statistic is Statistic.WASSERSTEIN_PER_STD_WINSORISED:
        # It is the largest difference of means over all functions with slopes up to 1, none of which varies
        # more than the values themselves: around its own mean it varies no more than their mean does.
        usual = math.sqrt(2 / math.pi) * _spread_of_shares(seen) * of.width
        return (usual + seen.std * math.sqrt(-2 * math.log(p))) * spread / of.unit
    if statistic is Statistic.KS_DISTANCE:
        return math.sqrt(-math.log(p / 2) / 2) * spread
    return 0.0


# Of a baseline alone: the same for every window.


@functools.lru_cache(maxsize=1024)
def _kurtosis(seen: Distribution, unit: float) -> float:
    edges = bins.fine_edges(seen.fine_low, seen.fine_high)
    away = ((edges[:-1] + edges[1:]) / 2 - seen.mean) / unit
    return max(float((away**4 * seen.fine).sum()) / seen.n, 1.0)


@functools.lru_cache(maxsize=1024)
def _spread_of_shares(seen: Distribution) -> float:
    below = (np.cumsum(seen.fine) / seen.n).clip(0, 1)
    return float(np.sqrt(below * (1 - below)).sum())


def _categorical_noise(of: CategoricalComparison, statistic: Statistic, p: float) -> float:
    spread = math.sqrt(1 / of.n + 1 / of.reference_n)
    if statistic is Statistic.PSI_GROUPS:
        return _psi_noise(of.groups[0].size, spread, p)
    if statistic is Statistic.TOTAL_VARIATION_CATEGORIES:
        return _total_variation_noise(of.categories[0], spread, p)
    return 0.0


def _numeric_tests(of: NumericComparison) -> dict[Statistic, float]:
    found = _group_test(*of.groups)
    found[Statistic.KS_DISTANCE] = probability.ks_tail(of.ks().value, of.n, of.reference_n)
    return found


def _categorical_tests(of: CategoricalComparison) -> dict[Statistic, float]:
    found = _group_test(*of.groups)
    spread = math.sqrt(1 / of.n + 1 / of.reference_n)
    beyond = distances.total_variation(*of.categories) / spread - _total_variation_usual(of.categories[0])
    found[Statistic.TOTAL_VARIATION_CATEGORIES] = math.exp(-2 * max(beyond, 0.0) ** 2)
    return found


def _group_test(reference: Ints, current: Ints) -> dict[Statistic, float]:
    if reference.size < 2:
        return {}
    x = distances.chi_square_two_samples(reference, current)
    return {Statistic.PSI_GROUPS: probability.chi_square_tail(x, reference.size - 1)}


def _psi_noise(groups: int, spread: float, p: float) -> float:
    # Yurdakul 2018: the index of two samples is chi-square but for a factor.
    return probability.chi_square_limit(p, groups - 1) * spread**2 if groups > 1 else 0.0


def _total_variation_noise(reference: Ints, spread: float, p: float) -> float:
    # No value moves it by more than one share of its sample (McDiarmid's inequality).
    return (_total_variation_usual(reference) + math.sqrt(-math.log(p) / 2)) * spread


def _total_variation_usual(reference: Ints) -> float:
    shares = reference / reference.sum()
    return float(np.sqrt(shares * (1 - shares)).sum()) / 2
