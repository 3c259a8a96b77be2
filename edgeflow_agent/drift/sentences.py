"""What was seen, in a sentence for each signal."""

from __future__ import annotations

import functools

from edgeflow_agent.drift.measures import Statistic

_SHARES = {
    Statistic.MISSING_SHARE: "missing",
    Statistic.NON_FINITE_SHARE: "infinite or beyond 1e100",
    Statistic.OUT_OF_RANGE_SHARE: "outside the range of the baseline",
    Statistic.UNSEEN_SHARE: "not known to the baseline",
}
_SHIFTS = {Statistic.MEAN_SHIFT, Statistic.MEAN_SHIFT_WINSORISED}
_STARTS = {
    "mean_shift": "the mean",
    "std_ratio": "the standard deviation, as a part of the baseline's,",
    "wasserstein_per_std": "the Wasserstein distance in standard deviations",
    "ks_distance": "the Kolmogorov-Smirnov distance",
    "psi": "the stability index (PSI)",
    "kl_nat": "the Kullback-Leibler divergence in nats",
    "js_distance_nat": "the Jensen-Shannon distance in nats",
    "total_variation": "the total variation distance",
    "chi_square_p": "the p-value of the chi-square test",
}
_ENDS = {
    "_sturges": "over bins of equal width",
    "_quantiles": "over 256 quantile bins",
    "_groups": "over groups of bins",
    "_values": "over the known values",
    "_categories": "over the known categories",
}
_WINSORISED = "_winsorised"


def of_distance(statistic: Statistic, value: float, threshold: float, n: int, drifts: bool) -> str:
    """About a statistic of n values that has a value and a threshold."""
    beyond = "beyond" if drifts else "within"
    if statistic in _SHIFTS:
        size = f"{abs(value):.3g} standard deviations {'above' if value >= 0 else 'below'} the baseline's"
    else:
        size = f"{value:.3g}"
    return f"{name(statistic)} is {size} in {n} values, {beyond} the limit of {threshold:.3g}"


def of_share(statistic: Statistic, count: int, n: int, usual: float, threshold: float, drifts: bool) -> str:
    """About a share of the window; the usual one is the baseline's."""
    beyond = "beyond" if drifts else "within"
    return (
        f"{count} of {n} values ({count / n:.2%}) are {_SHARES[statistic]}, "
        f"{usual:.2%} may be expected: {beyond} the limit of {threshold:.2%}"
    )


def of_too_few(n: int, least: int, reference_n: int, least_reference: int) -> str:
    """About a window or a baseline that is too small to judge by."""
    if reference_n < least_reference:
        return f"the baseline has {reference_n} such values, {least_reference} are needed: log more samples"
    return f"the window has {n} such values, {least} are needed"


@functools.cache
def name(statistic: Statistic) -> str:
    """A statistic in words, for the beginning of a sentence."""
    word = statistic.removesuffix(_WINSORISED)
    start = next(start for start in sorted(_STARTS, key=len, reverse=True) if word.startswith(start))
    parts = [_STARTS[start], _ENDS.get(word.removeprefix(start), "")]
    if statistic.endswith(_WINSORISED):
        parts.append("with absurd readings moved into range")
    return " ".join(part for part in parts if part)
