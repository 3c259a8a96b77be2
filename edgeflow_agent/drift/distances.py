"""How far two sets of counts over the same bins are apart.

Where Evidently has the same number, it is computed as Evidently 0.7 computes it. Arguments are arrays of
counts with the bins along the last axis, the reference first; each must have counted something. One
reference may stand beside many rows of current counts: then there is a number for each row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeflow_agent.drift.bins import Floats, Ints
from edgeflow_agent.drift.probability import chi_square_tail

# A float64 for counts of one axis, an array of one for each row otherwise.
Numbers = Any


def psi(reference: Ints, current: Ints) -> Numbers:
    """Population stability index, after the zeros are filled; the shares do not sum to 1 afterwards."""
    one, two = _filled(reference), _filled(current)
    return ((one - two) * np.log(one / two)).sum(axis=-1)


def kl_nat(reference: Ints, current: Ints) -> Numbers:
    """Kullback-Leibler divergence of the current shares from those of the reference (which stand first), in
    nats; the zeros are filled, and the shares brought back to a sum of 1."""
    one, two = _filled(reference), _filled(current)
    one, two = one / one.sum(axis=-1, keepdims=True), two / two.sum(axis=-1, keepdims=True)
    return np.maximum((one * np.log(one / two)).sum(axis=-1), 0.0)


def js_distance_nat(reference: Ints, current: Ints) -> Numbers:
    """Jensen-Shannon distance: the root of the divergence in nats, so at most 0.8326. Zeros stay zeros."""
    one, two = _shares(reference), _shares(current)
    middle = (one + two) / 2
    divergence = (_relative_entropy(one, middle) + _relative_entropy(two, middle)) / 2
    return np.sqrt(np.maximum(divergence, 0.0))


def total_variation(reference: Ints, current: Ints) -> Numbers:
    """Half the sum of the differences between the shares: how much of one would have to move."""
    return np.abs(_shares(reference) - _shares(current)).sum(axis=-1) / 2


def chi_square_two_samples(reference: Ints, current: Ints) -> Numbers:
    """Pearson's statistic for both being samples of the same distribution; one less than the number of
    non-empty bins are its degrees of freedom."""
    n, m = current.sum(axis=-1, keepdims=True), reference.sum(axis=-1, keepdims=True)
    both = reference + current
    apart = current * np.sqrt(m / n) - reference * np.sqrt(n / m)
    # Where both are empty they are not apart.
    return (apart * apart / np.maximum(both, 1)).sum(axis=-1)


def chi_square_one_sample(reference: Ints, current: Ints) -> Numbers:
    """Pearson's statistic for the current counts coming from exactly the reference's shares: infinite as
    soon as something was seen that the reference does not have."""
    expected = reference * (current.sum(axis=-1, keepdims=True) / reference.sum(axis=-1, keepdims=True))
    used = expected > 0
    parts = (current - expected) ** 2 / np.where(used, expected, 1)
    impossible = (~used & (current > 0)).any(axis=-1)
    return np.where(impossible, np.inf, np.where(used, parts, 0).sum(axis=-1))


def chi_square_p(reference: Ints, current: Ints) -> Numbers:
    """The p-value of Pearson's test against exactly the reference's shares, over the bins in use."""
    used = ((reference > 0) | (current > 0)).sum(axis=-1)
    found = chi_square_one_sample(reference, current)
    tails = [
        chi_square_tail(x, bins - 1) if bins > 1 else 1.0
        for x, bins in zip(np.ravel(found).tolist(), np.ravel(used).tolist(), strict=True)
    ]
    return np.array(tails).reshape(np.shape(used))


def ks_distance(reference: Floats, current: Floats) -> Numbers:
    """The largest difference between two cumulative shares that were taken at the same places."""
    return np.abs(reference - current).max(axis=-1, initial=0.0)


def wasserstein_of_values(reference: Ints, current: Ints, values: Floats) -> Numbers:
    """Earth mover's distance of counts that lie exactly at these sorted values."""
    apart = np.abs(np.cumsum(_shares(reference), axis=-1) - np.cumsum(_shares(current), axis=-1))
    return (apart[..., :-1] * np.diff(values)).sum(axis=-1)


def _shares(counts: Ints) -> Floats:
    shares: Floats = counts / counts.sum(axis=-1, keepdims=True)
    return shares


def _filled(counts: Ints) -> Floats:
    # Evidently's rule: an empty bin gets 0.0001, or a millionth of the smallest share where that is smaller.
    shares = _shares(counts)
    if counts.all():
        return shares
    smallest = np.where(shares > 0, shares, np.inf).min(axis=-1, keepdims=True)
    return np.where(shares == 0, np.where(smallest <= 0.0001, smallest / 10**6, 0.0001), shares)


def _relative_entropy(one: Floats, two: Floats) -> Numbers:
    # What one does not have says nothing.
    ratio = np.divide(one, two, out=np.ones(np.broadcast(one, two).shape), where=(one > 0) & (two > 0))
    return (one * np.log(ratio)).sum(axis=-1)
