"""How far two sets of counts over the same bins are apart.

Where Evidently has the same number, it is computed as Evidently 0.7 computes it. Arguments
are arrays of counts of equal length, the reference first; each must have counted something.
"""

from __future__ import annotations

import math

import numpy as np

from edgeflow_agent.drift.bins import Floats, Ints
from edgeflow_agent.drift.probability import chi_square_tail


def psi(reference: Ints, current: Ints) -> float:
    """Population stability index, after the zeros are filled; the shares do not sum to 1 afterwards."""
    one, two = _filled(reference), _filled(current)
    return float(((one - two) * np.log(one / two)).sum())


def kl_nat(reference: Ints, current: Ints) -> float:
    """Kullback-Leibler divergence of the current shares from those of the reference (which stand first), in
    nats; the zeros are filled, and the shares brought back to a sum of 1."""
    one, two = _filled(reference), _filled(current)
    one, two = one / one.sum(), two / two.sum()
    return max(float((one * np.log(one / two)).sum()), 0.0)


def js_distance_nat(reference: Ints, current: Ints) -> float:
    """Jensen-Shannon distance: the root of the divergence in nats, so at most 0.8326. Zeros stay zeros."""
    one, two = _shares(reference), _shares(current)
    middle = (one + two) / 2
    divergence = (_relative_entropy(one, middle) + _relative_entropy(two, middle)) / 2
    return math.sqrt(max(divergence, 0.0))


def total_variation(reference: Ints, current: Ints) -> float:
    """Half the sum of the differences between the shares: how much of one would have to move."""
    return float(np.abs(_shares(reference) - _shares(current)).sum() / 2)


def chi_square_two_samples(reference: Ints, current: Ints) -> float:
    """Pearson's statistic for both being samples of the same distribution; one less than the number of
    non-empty bins are its degrees of freedom."""
    n, m = int(current.sum()), int(reference.sum())
    both = reference + current
    apart = current * math.sqrt(m / n) - reference * math.sqrt(n / m)
    # Where both are empty they are not apart.
    return float((apart * apart / np.maximum(both, 1)).sum())


def chi_square_one_sample(reference: Ints, current: Ints) -> float:
    """Pearson's statistic for the current counts coming from exactly the reference's shares: infinite as
    soon as something was seen that the reference does not have."""
    expected = reference * (current.sum() / reference.sum())
    if current[expected == 0].any():
        return math.inf
    used = expected > 0
    return float(((current[used] - expected[used]) ** 2 / expected[used]).sum())


def chi_square_p(reference: Ints, current: Ints) -> float:
    """The p-value of Pearson's test against exactly the reference's shares, over the bins in use."""
    used = int(((reference > 0) | (current > 0)).sum())
    if used < 2:
        return 1.0
    return chi_square_tail(chi_square_one_sample(reference, current), used - 1)


def ks_distance(reference: Floats, current: Floats) -> float:
    """The largest difference between two cumulative shares that were taken at the same places."""
    return float(np.abs(reference - current).max(initial=0.0))


def wasserstein_of_values(reference: Ints, current: Ints, values: Floats) -> float:
    """Earth mover's distance of counts that lie exactly at these sorted values."""
    apart = np.abs(np.cumsum(_shares(reference)) - np.cumsum(_shares(current)))
    return float((apart[:-1] * np.diff(values)).sum())


def _shares(counts: Ints) -> Floats:
    shares: Floats = counts / counts.sum()
    return shares


def _filled(counts: Ints) -> Floats:
    # Evidently's rule: an empty bin gets 0.0001, or a millionth of the smallest share where that is smaller.
    shares = _shares(counts)
    if not counts.all():
        smallest = shares[shares > 0].min()
        shares[shares == 0] = smallest / 10**6 if smallest <= 0.0001 else 0.0001
    return shares


def _relative_entropy(one: Floats, two: Floats) -> float:
    used = one > 0
    return float((one[used] * np.log(one[used] / two[used])).sum())
