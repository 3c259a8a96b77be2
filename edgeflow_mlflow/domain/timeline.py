"""From windows over time to points of a graph: steps, rates, and quantiles of a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from edgeflow_agent.wire.telemetry import LATENCY_BUCKETS
from edgeflow_mlflow import errors

MOST_POINTS = 1000
_USUAL_POINTS = 120
_USUAL = timedelta(hours=1)
_STEPS = (60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


@dataclass(frozen=True, kw_only=True)
class Range:
    """From when to when, and in steps of how many seconds."""

    start: datetime
    end: datetime
    step_s: int


@dataclass(frozen=True, kw_only=True)
class Point:
    """What all windows that ended within one step have counted."""

    at: datetime
    windows: int
    targets: int
    outcomes: dict[str, int]
    requests: int
    failed: int
    latency_counts: Sequence[int]
    latency_sum_s: float
    observed: int
    unobserved: int
    swaps: int
    dropped: int
    resources: dict[str, float] = field(default_factory=dict)


def between(start: datetime | None, end: datetime | None, now: datetime) -> tuple[datetime, datetime]:
    """Both ends: the last hour where nothing is said. Raise InvalidError when they are in the wrong order."""
    for moment in (start, end):
        if moment is not None and moment.tzinfo is None:
            raise errors.InvalidError("a moment needs a time zone: write it as 2026-03-03T12:00:00Z")
    end = end or now
    start = start or end - _USUAL
    if start >= end:
        raise errors.InvalidError("`from` lies before `to`")
    return start, end


def steps(start: datetime, end: datetime, step_s: int) -> Range:
    """The range in steps: of about 120 where nothing is said. Raise InvalidError for too many."""
    seconds = (end - start).total_seconds()
    if not step_s:
        step_s = next((step for step in _STEPS if seconds / step <= _USUAL_POINTS), _STEPS[-1])
        step_s = max(step_s, int(seconds // MOST_POINTS) + 1)
    if seconds / step_s > MOST_POINTS:
        least = int(seconds // MOST_POINTS) + 1
        raise errors.InvalidError(f"that makes over {MOST_POINTS} points: take a step of {least} s or more")
    return Range(start=start, end=end, step_s=step_s)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """About the time within which such a share of the requests was answered: values are taken to lie evenly
    within a bucket, and what is beyond the last one counts as its end."""
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    below = 0
    for place, count in enumerate(counts):
        if count and below + count >= wanted:
            if place == len(LATENCY_BUCKETS):
                break
            low = LATENCY_BUCKETS[place - 1] if place else 0.0
            return low + (LATENCY_BUCKETS[place] - low) * max(wanted - below, 0.0) / count
        below += count
    return LATENCY_BUCKETS[-1]


def ratio(part: float, whole: float) -> float | None:
    """A share, or None of nothing."""
    return part / whole if whole else None
