"""What verdicts on single windows come to: when there is enough to judge, which verdicts stand out among
all of a fleet, and when several that agree are an alarm."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from edgeflow_agent.drift import alarms
from edgeflow_agent.drift.measures import Statistic
from edgeflow_agent.drift.verdict import Status, Thresholds, Verdict
from edgeflow_mlflow import errors

# Of what stands out, so much does by chance.
FALSE_SHARE = 0.05
HISTORY = 20
# Few values are judged all the same after so long, and a p-value says nothing any more after so long.
PATIENCE = timedelta(hours=1)
FRESH = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Persistence:
    """`k` of the newest `n` evaluations must agree."""

    k: int
    n: int

    @classmethod
    def of(cls, k: int, n: int) -> Persistence:
        """As it was set; k is at most n."""
        n = min(max(n, 1), HISTORY)
        return cls(k=min(max(k, 1), n), n=n)


class Said(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A verdict on n values as it is kept, its signals as JSON: thousands of them wait to be stored."""

    n: int
    status: str
    p_value: float | None
    signals: msgspec.Raw


def thresholds(settings: Mapping[str, Any]) -> Thresholds:
    """The usual ones with these changes; raise InvalidError that names what is wrong and what is near."""
    limits = dict(Thresholds().limits)
    for name, limit in settings.get("limits", {}).items():
        try:
            statistic = Statistic(name)
        except ValueError as error:
            near = difflib.get_close_matches(name, [item.value for item in Statistic], n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; known are {', '.join(Statistic)}"
            raise errors.InvalidError(f"there is no statistic {name[:100]!r}{hint}") from error
        if limit is None:
            limits.pop(statistic, None)
        elif not (math.isfinite(limit) and limit > 0):
            raise errors.InvalidError(f"the limit of {name} is a number above 0, not {limit!r}")
        else:
            limits[statistic] = limit
    numbers = {
        name: settings[name] for name in ("min_samples", "min_reference", "chance") if name in settings
    }
    try:
        return Thresholds(limits=limits, **numbers)
    except ValueError as error:
        raise errors.InvalidError(str(error)) from error


def is_due(samples: int, waiting_since: datetime, least: int, now: datetime) -> bool:
    """Whether windows with so many values are to be judged now."""
    return samples >= least or now - waiting_since >= PATIENCE


def chunks(samples: Sequence[int], least: int, most: int, *, with_rest: bool) -> list[range]:
    """Which windows are judged together: neighbours, until they have enough values; at most `most` chunks,
    so that what a device brings after a long absence costs no more. Windows that are left over join the last
    chunk `with_rest`, and where chunks had to be large; else they wait for others."""
    share = math.ceil(sum(samples) / most)
    with_rest, least = with_rest or share > least, max(least, share)
    found: list[range] = []
    begin = collected = 0
    for place, count in enumerate(samples):
        collected += count
        if collected >= least:
            found.append(range(begin, place + 1))
            begin, collected = place + 1, 0
    if with_rest and begin < len(samples):
        found = [*found[:-1], range(found[-1].start, len(samples))] if found else [range(len(samples))]
    return found


def outstanding(p_values: Sequence[float]) -> float:
    """The largest of these p-values that stands out among them (Benjamini and Hochberg); -1: none."""
    if not p_values:
        return -1.0
    stand_out = alarms.benjamini_hochberg(p_values, FALSE_SHARE)
    return max((p for p, yes in zip(p_values, stand_out, strict=True) if yes), default=-1.0)


def said(verdict: Verdict, n: int) -> Said:
    """The verdict on n values, as it is kept."""
    return Said(
        n=n,
        status=verdict.status.value,
        p_value=verdict.p_value,
        signals=msgspec.Raw(msgspec.json.encode(verdict.signals)),
    )


def entry(of: Said, at: datetime, limit: float) -> dict[str, Any]:
    """One evaluation, for the history. `limit` is from `outstanding`, of all that were judged with it."""
    p_value = of.p_value
    return {
        "at": at.isoformat(),
        "n": of.n,
        "status": of.status,
        "p_value": p_value,
        "significant": p_value is not None and p_value <= limit,
    }


def alarmed(history: Sequence[Mapping[str, Any]], persistence: Persistence) -> bool:
    """Whether enough of the newest evaluations have drifted and stood out. Those that had too few values
    say nothing."""
    bad = [
        item["status"] == Status.DRIFT.value and bool(item["significant"])
        for item in history
        if item["status"] != Status.INSUFFICIENT_DATA.value
    ]
    return alarms.holds(bad, persistence.k, persistence.n)


def signals(verdict: Verdict) -> list[dict[str, Any]]:
    """The signals as plain data; what is no number is null."""
    found = []
    for signal in verdict.signals:
        plain = msgspec.to_builtins(signal)
        for name in ("value", "threshold", "p_value"):
            if plain[name] is not None and not math.isfinite(plain[name]):
                plain[name] = None
        found.append(plain)
    return found
