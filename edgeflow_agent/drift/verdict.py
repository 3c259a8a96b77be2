"""Whether a window has drifted from its baseline: numbers go in, a status and a sentence for each come out.

A statistic drifts when it is both large and no chance: beyond its limit, and beyond what windows and
baselines of these sizes give by themselves. So the limits mean the same for 500 values and for a million.
One window is no alarm yet; `alarms` says what many of them are together.
"""

from __future__ import annotations

import enum

import msgspec

from edgeflow_agent.drift import chance, sentences, shares
from edgeflow_agent.drift.measures import Measure, Statistic
from edgeflow_agent.drift.sketch import Sketch
from edgeflow_agent.drift.statistics import Comparison, compare

# The p-values are compared from above, all others from below.
_P_VALUES = {Statistic.CHI_SQUARE_P_VALUES, Statistic.CHI_SQUARE_P_CATEGORIES}
_RATIOS = {Statistic.STD_RATIO, Statistic.STD_RATIO_WINSORISED}


class Status(enum.StrEnum):
    """How a signal, or a feature with all its signals, stands."""

    OK = "ok"
    DRIFT = "drift"
    INSUFFICIENT_DATA = "insufficient_data"


def _usual_limits() -> dict[Statistic, float]:
    return {
        Statistic.PSI_GROUPS: 0.1,
        Statistic.TOTAL_VARIATION_VALUES: 0.1,
        Statistic.TOTAL_VARIATION_CATEGORIES: 0.1,
        Statistic.MEAN_SHIFT_WINSORISED: 0.25,
        Statistic.STD_RATIO_WINSORISED: 1.5,
        Statistic.WASSERSTEIN_PER_STD_WINSORISED: 0.1,
        Statistic.MISSING_SHARE: 0.02,
        Statistic.NON_FINITE_SHARE: 0.01,
        Statistic.OUT_OF_RANGE_SHARE: 0.01,
        Statistic.UNSEEN_SHARE: 0.01,
    }


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """From when on a window counts.

    `limits` names the statistics to judge and how large each may be: a shift up and down, a ratio r as well
    as 1/r, a share above the baseline's own, a p-value from above. `min_samples` is the least of a window,
    `min_reference` of a baseline. `chance` is how likely a statistic may pass its limit in one window in
    which nothing has changed; it is kept for those of which that can be said (not for `sturges` and
    `quantiles`, whose limits hold as they are, as Evidently's do).
    """

    min_samples: int = 500
    min_reference: int = 100
    chance: float = 1e-4
    limits: dict[Statistic, float] = msgspec.field(default_factory=_usual_limits)

    def __post_init__(self) -> None:
        if not 0 < self.chance < 1:
            raise ValueError("chance must lie between 0 and 1")
        if self.min_samples < 1 or self.min_reference < 1:
            raise ValueError("min_samples and min_reference must be at least 1")


class Signal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One statistic of a window: what it is, from which threshold on it drifts at this size, and in words
    what was seen. `p_value` where a test stands behind it; `approx` as in `Measure`."""

    statistic: Statistic
    value: float
    threshold: float
    status: Status
    text: str
    approx: bool = False
    p_value: float | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one feature stands in one window.

    `p_value` is how likely a window would differ as much in any of its tests by chance, corrected for their
    number: what `alarms.benjamini_hochberg` takes. None while there is too little data for any.
    """

    feature: str
    status: Status
    p_value: float | None
    signals: tuple[Signal, ...]


def judge(sketch: Sketch, thresholds: Thresholds = Thresholds()) -> Verdict:  # noqa: B008 - it is frozen
    """The verdict on a window, with a signal for each statistic that has a limit and can be computed."""
    signals, p_values = _of_shares(sketch, thresholds)
    apart = compare(sketch)
    if apart is not None:
        enough = apart.n >= thresholds.min_samples and apart.reference_n >= thresholds.min_reference
        tests = chance.tests(apart) if enough else {}
        p_values += tests.values()
        for statistic, limit in thresholds.limits.items():
            found = apart.measure(statistic)
            if found is None:
                continue
            if enough:
                signals.append(_of_distance(apart, statistic, found, limit, thresholds, tests.get(statistic)))
            else:
                signals.append(_insufficient(statistic, found, limit, apart.n, apart.reference_n, thresholds))
    statuses = {signal.status for signal in signals}
    if Status.DRIFT in statuses:
        status = Status.DRIFT
    else:
        status = Status.OK if Status.OK in statuses else Status.INSUFFICIENT_DATA
    return Verdict(
        feature=sketch.feature.name,
        status=status,
        p_value=min(min(p_values) * len(p_values), 1.0) if p_values else None,
        signals=tuple(signals),
    )


def _of_shares(sketch: Sketch, thresholds: Thresholds) -> tuple[list[Signal], list[float]]:
    signals, p_values = [], []
    for statistic, share in shares.of(sketch).items():
        limit = thresholds.limits.get(statistic)
        value = Measure(share.value)
        if share.n < thresholds.min_samples or share.usual_n < thresholds.min_reference:
            if limit is not None:
                signals.append(_insufficient(statistic, value, limit, share.n, share.usual_n, thresholds))
            continue
        p_value = share.tail(share.count)
        p_values.append(p_value)
        if limit is None:
            continue
        threshold = share.limit(limit, thresholds.chance)
        drifts = share.value >= threshold
        signals.append(
            Signal(
                statistic=statistic,
                value=share.value,
                threshold=threshold,
                status=Status.DRIFT if drifts else Status.OK,
                text=sentences.of_share(statistic, share, threshold, drifts),
                p_value=p_value,
            )
        )
    return signals, p_values


def _of_distance(
    apart: Comparison,
    statistic: Statistic,
    found: Measure,
    limit: float,
    thresholds: Thresholds,
    p_value: float | None,
) -> Signal:
    threshold = limit
    if statistic not in _P_VALUES:
        threshold = max(limit, chance.noise(apart, statistic, thresholds.chance))
    drifts = _beyond(statistic, found.value, threshold)
    return Signal(
        statistic=statistic,
        value=found.value,
        threshold=threshold,
        status=Status.DRIFT if drifts else Status.OK,
        text=sentences.of_distance(statistic, found.value, threshold, apart.n, drifts),
        approx=found.approx,
        p_value=p_value,
    )


def _beyond(statistic: Statistic, value: float, threshold: float) -> bool:
    if statistic in _P_VALUES:
        return value <= threshold
    if statistic in _RATIOS:
        return value >= threshold or value * threshold <= 1
    return abs(value) >= threshold


def _insufficient(
    statistic: Statistic, found: Measure, limit: float, n: int, reference_n: int, thresholds: Thresholds
) -> Signal:
    return Signal(
        statistic=statistic,
        value=found.value,
        threshold=limit,
        status=Status.INSUFFICIENT_DATA,
        text=sentences.of_too_few(n, thresholds.min_samples, reference_n, thresholds.min_reference),
        approx=found.approx,
    )
