"""Tails of the few distributions that drift is judged by, without SciPy."""

from __future__ import annotations

import functools
import math
import statistics

import numpy as np

from edgeflow_agent.drift.bins import Floats, Ints

# SciPy counts paths up to the same size.
EXACT_KS = 10_000
# Logarithms of factorials beyond this have lost the digits that a probability would need.
_COUNTABLE = 10**7
# With up to so many degrees of freedom the terms of the finite sum stay numbers.
_FINITE = 256
_NORMAL = statistics.NormalDist()


def normal_tail(z: float) -> float:
    """The probability that a standard normal number is above z."""
    return 0.5 * math.erfc(z / math.sqrt(2))


@functools.lru_cache(maxsize=256)
def normal_limit(p: float) -> float:
    """What a standard normal number exceeds, up or down, with probability p."""
    return -_NORMAL.inv_cdf(p / 2)


def chi_square_tail(x: float, freedom: int) -> float:
    """The probability that a chi-square number of so many degrees of freedom is above x."""
    if x <= 0:
        return 1.0
    if math.isinf(x):
        return 0.0
    a, half = freedom / 2, x / 2
    if freedom <= _FINITE and half >= 1:
        return _finite_upper(freedom, half)
    front = math.exp(a * (math.log(x) - math.log(2)) - half - math.lgamma(a))
    return 1 - front * _lower_series(a, half) if half < a + 1 else front * _upper_fraction(a, half)


@functools.lru_cache(maxsize=4096)
def chi_square_limit(p: float, freedom: int) -> float:
    """What a chi-square number of so many degrees of freedom exceeds with probability p, 0 < p < 1."""
    # Wilson and Hilferty's cube comes within a percent, Newton's steps on the logarithm do the rest.
    part = 2 / (9 * freedom)
    x = max(freedom * (1 - part - _NORMAL.inv_cdf(p) * math.sqrt(part)) ** 3, 1e-3 * freedom)
    for _ in range(60):
        tail = chi_square_tail(x, freedom)
        log_density = (freedom / 2 - 1) * math.log(x / 2) - x / 2 - math.lgamma(freedom / 2) - math.log(2)
        step = math.log(tail / p) * tail / math.exp(log_density)
        x = max(x + step, x / 10)
        if abs(step) <= 1e-13 * x:
            break
    return x


@functools.lru_cache(maxsize=4096)
def more_often_tail(x: int, n: int, y: int, m: int) -> float:
    """The probability of at least x among n when x + y fall by chance among n + m (Fisher's exact test, one
    side): small when something happens more often than it did. 1 when it does not."""
    if x * m <= y * n:
        return 1.0
    hits = x + y
    if n + m > _COUNTABLE:
        share = hits / (n + m)
        return normal_tail((x / n - y / m) / math.sqrt(share * (1 - share) * (1 / n + 1 / m)))
    term = math.exp(_log_choose(n, x) + _log_choose(m, y) - _log_choose(n + m, hits))
    total = 0.0
    for k in range(x, min(n, hits) + 1):
        total += term
        if term <= 1e-17 * total:
            break
        term *= (n - k) * (hits - k) / ((k + 1) * (m - hits + k + 1))
    return min(total, 1.0)


def ks_tail(distance: Floats | float, n: Ints | int, m: int) -> Floats:
    """About the probability of at least this Kolmogorov-Smirnov distance between samples of n and m values
    of one distribution: Kolmogorov's limit with Stephens' correction. Ties make it too large."""
    root = np.sqrt(n / (np.asarray(n) + m) * m)
    x = np.maximum(distance * (root + 0.12 + 0.11 / root), 0.2)[..., np.newaxis]
    k = np.arange(1, 6)
    upper = 2 * ((-1.0) ** (k - 1) * np.exp(-2 * (k * x) ** 2)).sum(axis=-1)
    # The other theta series, which is the fast one for small distances. Below 0.2 it is 1 in all digits.
    x_squared = x * x
    odd = np.exp(-((2 * k - 1) ** 2) * math.pi**2 / (8 * x_squared)).sum(axis=-1)
    lower = 1 - math.sqrt(2 * math.pi) / x[..., 0] * odd
    found: Floats = np.minimum(np.where(x[..., 0] < 1, lower, upper), 1.0)
    return found


def ks_tail_exact(distance: float, n: int, m: int) -> float:
    """The same, exactly, for samples without ties: milliseconds up to EXACT_KS values, above it `ks_tail`.

    An order of both samples is a path over a lattice of n by m steps. The paths that leave the band in which
    the distance is smaller are counted where they leave it: the sum has no differences, so a tail of 1e-50
    has as many digits as one of 0.5.
    """
    n, m = min(n, m), max(n, m)
    if m > EXACT_KS:
        return float(ks_tail(distance, n, m))
    unit = math.gcd(n, m)
    band = round(distance * (n // unit) * m) * unit
    if band == 0:
        return 1.0
    factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + m + 1)))))
    log_all = factorials[n + m] - factorials[n] - factorials[m]
    rows = np.arange(n + 1)
    # Inside the band |row * m - column * n| < band.
    lows = np.maximum((rows * m - band) // n + 1, 0)
    highs = np.minimum(-((-rows * m - band) // n) - 1, m)
    inside = np.ones(int(highs[0]) + 1)
    log_scale, tail = 0.0, 0.0
    for row in range(n + 1):
        low, high = int(lows[row]), int(highs[row])
        if high < m:
            up = np.array([m - high - 1])
            tail += _passing(inside[-1:], log_scale - log_all, factorials, n - row, up)
        if row == n:
            break
        leaving = np.arange(low, min(int(lows[row + 1]), high + 1))
        over = inside[: leaving.size]
        tail += _passing(over, log_scale - log_all, factorials, n - row - 1, m - leaving)
        grown = np.zeros(int(highs[row + 1]) - int(lows[row + 1]) + 1)
        kept = inside[leaving.size :]
        grown[: kept.size] = kept
        inside = np.cumsum(grown)
        if inside[-1] > 1e200:
            log_scale += math.log(inside[-1])
            inside /= inside[-1]
    return min(float(tail), 1.0)


def _passing(paths: Floats, log_factor: float, factorials: Floats, ups: int, rights: Ints) -> float:
    # The share of all paths that come by here: those until here times those over the steps that remain.
    with np.errstate(divide="ignore"):
        logs = np.log(paths) + factorials[ups + rights] - factorials[ups] - factorials[rights]
    return float(np.exp(logs + log_factor).sum())


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _finite_upper(freedom: int, half: float) -> float:
    # Whole and half degrees come down to those of 2 and of 1 in as many steps: sums without differences.
    a = freedom / 2
    tail = math.erfc(math.sqrt(half)) if freedom % 2 else 0.0
    if freedom == 1:
        return tail
    term = math.exp((a - 1) * math.log(half) - half - math.lgamma(a))
    for _ in range((freedom + 1) // 2 - 1 if freedom % 2 else freedom // 2):
        tail += term
        a -= 1
        term *= a / half
    return min(tail, 1.0)


def _lower_series(a: float, x: float) -> float:
    term = total = 1 / a
    k = a
    while term > 1e-17 * total:
        k += 1
        term *= x / k
        total += term
    return total


def _upper_fraction(a: float, x: float) -> float:
    # Lentz's way through the continued fraction of the upper incomplete gamma function.
    b = x + 1 - a
    c, d = 1e300, 1 / b
    result = d
    for k in range(1, 10_000):
        factor = k * (a - k)
        b += 2
        d = 1 / (factor * d + b)
        c = b + factor / c
        result *= d * c
        if abs(d * c - 1) < 1e-16:
            break
    return result
