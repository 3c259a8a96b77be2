"""Whether a window has drifted from its baseline: numbers go in, a status and a sentence for each come out.

A statistic drifts when it is both large and no chance: beyond its limit, and beyond what windows and
baselines of these sizes give by themselves. So the limits mean the same for 500 values and for a million.
One window is no alarm yet; `alarms` says what many of them are together.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from edgeflow_agent.drift import chance, sentences, shares, stack
from edgeflow_agent.drift.bins import Floats, Ints
from edgeflow_agent.drift.measures import Bools, Statistic
from edgeflow_agent.drift.shares import Share
from edgeflow_agent.drift.sketch import Sketch
from edgeflow_agent.drift.stack import NumericStack, Stack
from edgeflow_agent.drift.statistics import compare

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """One statistic of many windows, of which each has `n` values to judge it by: NaN where a window has
    none; `enough` where there is enough to say whether it `drifts`."""

    statistic: Statistic
    values: Floats
    limits: Floats
    enough: Bools
    drifts: Bools
    p_values: Floats
    n: Ints
    reference_n: int
    approx: bool | Bools = False
    share: Share | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessment:
    """How many windows of one feature stand, as arrays; `verdicts` says it in words. `p_values` are those of
    `Verdict`, NaN for None."""

    feature: str
    thresholds: Thresholds
    judgements: Sequence[Judgement]
    p_values: Floats

    @property
    def drifts(self) -> Bools:
        """Which of the windows have drifted."""
        return _any(self.p_values.size, [item.drifts for item in self.judgements])

    @property
    def judged(self) -> Bools:
        """Of which windows anything can be said."""
        said = [item.enough & ~np.isnan(item.values) for item in self.judgements]
        return _any(self.p_values.size, said)

    def verdicts(self) -> list[Verdict]:
        """The verdict on each window."""
        columns = [_signals(item, self.thresholds) for item in self.judgements]
        each = zip(*columns, strict=True) if columns else itertools.repeat((), self.p_values.size)
        return [
            Verdict(
                feature=self.feature,
                status=Status.DRIFT if drifts else Status.OK if judged else Status.INSUFFICIENT_DATA,
                p_value=None if math.isnan(p_value) else p_value,
                signals=tuple([signal for signal in signals if signal is not None]),
            )
            for drifts, judged, p_value, signals in zip(
                self.drifts.tolist(), self.judged.tolist(), self.p_values.tolist(), each, strict=True
            )
        ]


def judge(sketch: Sketch, thresholds: Thresholds = Thresholds()) -> Verdict:  # noqa: B008 - it is frozen
    """The verdict on a window, with a signal for each statistic that has a limit and can be computed."""
    return assess(stack.of([sketch]), thresholds).verdicts()[0]


def assess(windows: Stack, thresholds: Thresholds = Thresholds()) -> Assessment:  # noqa: B008
    """How each of many windows stands."""
    found = [*_of_shares(windows, thresholds), *_of_distances(windows, thresholds)]
    p_values = np.array([item.p_values for item in found]).reshape(len(found), -1)
    tests = (~np.isnan(p_values)).sum(axis=0)
    least = np.where(np.isnan(p_values), math.inf, p_values).min(axis=0, initial=math.inf)
    return Assessment(
        feature=windows.feature.name,
        thresholds=thresholds,
        judgements=[item for item in found if item.statistic in thresholds.limits],
        p_values=np.where(tests > 0, np.minimum(np.where(tests > 0, least, 1.0) * tests, 1.0), math.nan),
    )


def _of_shares(windows: Stack, thresholds: Thresholds) -> Iterator[Judgement]:
    for statistic, share in shares.of(windows).items():
        limit = thresholds.limits.get(statistic, math.inf)
        enough = (share.n >= thresholds.min_samples) & (share.usual_n >= thresholds.min_reference)
        rows = enough.nonzero()[0]
        p_values = np.full(enough.size, math.nan)
        p_values[rows] = share.tails(rows)
        limits = np.full(enough.size, limit)
        if rows.size and statistic in thresholds.limits:
            limits[rows] = share.limits(limit, thresholds.chance, rows)
        values = share.values
        yield Judgement(
            statistic=statistic,
            values=values,
            limits=limits,
            enough=enough,
            drifts=enough & (values >= limits),
            p_values=p_values,
            n=share.n,
            reference_n=share.usual_n,
            share=share,
        )


def _of_distances(windows: Stack, thresholds: Thresholds) -> Iterator[Judgement]:
    has_values = (windows.finite if isinstance(windows, NumericStack) else windows.present) > 0
    rows = has_values.nonzero()[0]
    apart = compare(windows if has_values.all() else windows.take(rows)) if rows.size else None
    if apart is None:
        return
    enough = (apart.n >= thresholds.min_samples) & (apart.reference_n >= thresholds.min_reference)
    tests = chance.tests(apart) if enough.any() else {}
    none = np.full(rows.size, math.nan)
    for statistic in dict.fromkeys([*thresholds.limits, *tests]):
        found = apart.measure(statistic)
        if found is None:
            continue
        limit = thresholds.limits.get(statistic, math.inf)
        limits = np.full(rows.size, limit)
        if enough.any() and statistic in thresholds.limits and statistic not in _P_VALUES:
            least = np.maximum(limit, chance.noise(apart, statistic, thresholds.chance))
            limits = np.where(enough, least, limit)
        item = Judgement(
            statistic=statistic,
            values=found.values,
            limits=limits,
            enough=enough,
            drifts=enough & _beyond(statistic, found.values, limits),
            p_values=np.where(enough, tests.get(statistic, none), math.nan),
            n=apart.n,
            reference_n=apart.reference_n,
            approx=found.approx,
        )
        yield item if rows.size == has_values.size else _among(item, rows, has_values.size)


def _among(item: Judgement, rows: Ints, count: int) -> Judgement:
    """A judgement on some of so many windows as one on all."""

    def spread(array: Any, fill: Any) -> Any:
        found = np.full(count, fill)
        found[rows] = array
        return found

    return Judgement(
        statistic=item.statistic,
        values=spread(item.values, math.nan),
        limits=spread(item.limits, math.nan),
        enough=spread(item.enough, False),
        drifts=spread(item.drifts, False),
        p_values=spread(item.p_values, math.nan),
        n=spread(item.n, 0),
        reference_n=item.reference_n,
        approx=spread(item.approx, False),
    )


def _any(count: int, parts: Sequence[Bools]) -> Bools:
    found = np.zeros(count, dtype=np.bool_)
    for part in parts:
        found |= part
    return found


def _beyond(statistic: Statistic, values: Floats, limits: Floats) -> Bools:
    if statistic in _P_VALUES:
        return values <= limits
    if statistic in _RATIOS:
        return (values >= limits) | (values * limits <= 1)
    return np.abs(values) >= limits


def _signals(item: Judgement, thresholds: Thresholds) -> list[Signal | None]:
    size = item.values.size
    approx = [item.approx] * size if isinstance(item.approx, bool) else item.approx.tolist()
    counts = item.share.count.tolist() if item.share is not None else [0] * size
    usual = item.share.usual / item.share.usual_n if item.share is not None else 0.0
    found: list[Signal | None] = []
    for value, limit, enough, drifts, p_value, n, is_approx, count in zip(
        item.values.tolist(),
        item.limits.tolist(),
        item.enough.tolist(),
        item.drifts.tolist(),
        item.p_values.tolist(),
        item.n.tolist(),
        approx,
        counts,
        strict=True,
    ):
        if math.isnan(value):
            found.append(None)
            continue
        if not enough:
            text = sentences.of_too_few(n, thresholds.min_samples, item.reference_n, thresholds.min_reference)
        elif item.share is not None:
            text = sentences.of_share(item.statistic, count, n, usual, limit, drifts)
        else:
            text = sentences.of_distance(item.statistic, value, limit, n, drifts)
        found.append(
            Signal(
                statistic=item.statistic,
                value=value,
                threshold=limit,
                status=Status.DRIFT if drifts else Status.OK if enough else Status.INSUFFICIENT_DATA,
                text=text,
                approx=is_approx,
                p_value=None if math.isnan(p_value) else p_value,
            )
        )
    return found
