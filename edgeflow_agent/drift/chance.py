"""What the statistics are while nothing has changed: how large by chance alone, and how likely what was seen.

Both samples are finite, the baseline's as well: chance comes from 1/n + 1/n_reference, so that a small window
does not cry, and neither does a small baseline.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from edgeflow_agent.drift import bins, distances, probability
from edgeflow_agent.drift.baseline import Distribution
from edgeflow_agent.drift.bins import Floats, Ints
from edgeflow_agent.drift.categorical import CategoricalComparison
from edgeflow_agent.drift.measures import Statistic
from edgeflow_agent.drift.numeric import Grouped, NumericComparison
from edgeflow_agent.drift.statistics import Comparison


def noise(of: Comparison, statistic: Statistic, p: float) -> Floats | float:
    """What a statistic of each window exceeds with a probability of about p, or less, when nothing has
    changed; 0 for those of which it is not known."""
    if isinstance(of, NumericComparison):
        return _numeric_noise(of, statistic, p)
    return _categorical_noise(of, statistic, p)


def tests(of: Comparison) -> dict[Statistic, Floats]:
    """How likely at least what was seen is in each window while nothing has changed, by tests that suppose
    nothing about how the values are distributed. NaN where there is no such test."""
    found = {Statistic.PSI_GROUPS: _group_tests(of.groups, of.n.size)}
    if isinstance(of, NumericComparison):
        apart = of.measure(Statistic.KS_DISTANCE)
        if apart is not None:
            found[Statistic.KS_DISTANCE] = probability.ks_tail(apart.values, of.n, of.reference_n)
        return found
    reference, current = of.categories
    beyond = distances.total_variation(reference, current) / _spread(of) - _total_variation_usual(reference)
    found[Statistic.TOTAL_VARIATION_CATEGORIES] = np.exp(-2 * np.maximum(beyond, 0.0) ** 2)
    return found


def _spread(of: Comparison) -> Floats:
    spread: Floats = np.sqrt(1 / of.n + 1 / of.reference_n)
    return spread


def _numeric_noise(of: NumericComparison, statistic: Statistic, p: float) -> Floats | float:
    seen = of.seen
    if statistic is Statistic.PSI_GROUPS:
        return _psi_noise(of, p)
    if statistic is Statistic.TOTAL_VARIATION_VALUES:
        return _total_variation_noise(of.values[0], of, p)
    if statistic is Statistic.MEAN_SHIFT_WINSORISED:
        return probability.normal_limit(p) * _spread(of) * seen.std / of.unit
    if statistic is Statistic.STD_RATIO_WINSORISED:
        # The variance of a variance, by its fourth moment. Downwards a ratio may reach further: a window may
        # have none of the rare values that make most of the deviation.
        part = probability.normal_limit(p) * _spread(of) * math.sqrt(_kurtosis(seen, of.unit) - 1)
        wider = np.sqrt(of.stack.inner_m2 / of.n) >= seen.std
        return np.where(wider, np.sqrt(1 + part), 1 / np.sqrt(np.maximum(1 - part, 1e-6)))
    if statistic is Statistic.WASSERSTEIN_PER_STD_WINSORISED:
        # It is the largest difference of means over all functions with slopes up to 1, none of which varies
        # more than the values themselves: around its own mean it varies no more than their mean does.
        usual = math.sqrt(2 / math.pi) * _spread_of_shares(seen) * of.width
        return (usual + seen.std * math.sqrt(-2 * math.log(p))) * _spread(of) / of.unit
    if statistic is Statistic.KS_DISTANCE:
        return math.sqrt(-math.log(p / 2) / 2) * _spread(of)
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


def _categorical_noise(of: CategoricalComparison, statistic: Statistic, p: float) -> Floats | float:
    if statistic is Statistic.PSI_GROUPS:
        return _psi_noise(of, p)
    if statistic is Statistic.TOTAL_VARIATION_CATEGORIES:
        return _total_variation_noise(of.categories[0], of, p)
    return 0.0


def _group_tests(parts: Sequence[Grouped], count: int) -> Floats:
    found = np.full(count, math.nan)
    for part in parts:
        freedom = part.reference.size - 1
        if freedom:
            apart = distances.chi_square_two_samples(part.reference, part.current)
            found[part.rows] = [probability.chi_square_tail(x, freedom) for x in apart.tolist()]
    return found


def _psi_noise(of: Comparison, p: float) -> Floats:
    # Yurdakul 2018: the index of two samples is chi-square but for a factor.
    limits = np.zeros(of.n.size)
    for part in of.groups:
        if part.reference.size > 1:
            limits[part.rows] = probability.chi_square_limit(p, part.reference.size - 1)
    return limits * _spread(of) ** 2


def _total_variation_noise(reference: Ints, of: Comparison, p: float) -> Floats:
    # No value moves it by more than one share of its sample (McDiarmid's inequality).
    return (_total_variation_usual(reference) + math.sqrt(-math.log(p) / 2)) * _spread(of)


def _total_variation_usual(reference: Ints) -> float:
    shares = reference / reference.sum()
    return float(np.sqrt(shares * (1 - shares)).sum()) / 2
