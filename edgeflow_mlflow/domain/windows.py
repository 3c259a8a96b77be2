"""What of a window of telemetry is believed. A device may say anything; who asks for its figures later must
not be misled, and what cannot be believed must not hurt what can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from edgeflow_agent.wire.documents import Count, Text
from edgeflow_agent.wire.telemetry import LATENCY_BUCKETS, MAX_FEATURES, Latency, TelemetryWindow

LONGEST = timedelta(days=1)
# A clock that is further back than this was never set.
_OLDEST = timedelta(days=366)
_MAX_ID = 64
# No device answers more often; beyond, a count is no measurement.
_MOST_PER_SECOND = 1e6
# A request may end in another window than the one that it began in.
_LATE = 1000
# What is summed up over fleets and years stays a number that a database can hold.
_MOST = 2**40


class FeatureHead(msgspec.Struct, frozen=True):
    """All that is read of a feature when it comes: the rest is read when it is judged."""

    name: Text
    n: Count = 0


class Incoming(TelemetryWindow, frozen=True, kw_only=True, omit_defaults=True):
    """A window whose sketches nobody has looked at: that takes a fifth of the time."""

    features: tuple[FeatureHead, ...] = ()  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the server knows of the bundle that a window names: it gave it to this device."""

    deployment: str
    model: str
    version: str
    baseline: str


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A window as it is stored. `known` is None when the device was never given what it says it served;
    `refused` says why there are no sketches where there could be (its first word is the reason)."""

    window: Incoming
    known: Known | None
    start: datetime
    end: datetime
    samples: int
    refused: str = ""

    @property
    def has_sketches(self) -> bool:
        """Whether something can be computed from its features."""
        return bool(self.window.features) and not self.refused


def storable(window: Incoming) -> str:
    """Why the identity of a window cannot be kept, or nothing."""
    if not window.boot or len(window.boot) > _MAX_ID or not window.boot.isprintable():
        return f"boot is 1 to {_MAX_ID} printable characters"
    return ""


def examine(window: Incoming, known: Known | None, now: datetime) -> Examined:
    """What is kept of a window that came now."""
    problems = []
    if not 0 <= window.seconds <= LONGEST.total_seconds():
        problems.append(f"seconds: a window of {window.seconds:g} s is none: it has 0 to 86400")
        window = msgspec.structs.replace(window, seconds=0.0)
    if window.requests.total > _MOST_PER_SECOND * max(window.seconds, 1.0):
        problems.append(f"counts: {window.requests.total} requests in {window.seconds:g} s")
        window = _uncounted(window)
    if window.observed + window.unobserved > window.requests.total + _LATE or window.swaps > _MOST:
        problems.append("counts: it has looked at more requests than there were")
        window = msgspec.structs.replace(window, observed=0, unobserved=0, swaps=0)
    if problem := _latency(window):
        problems.append(problem)
        window = msgspec.structs.replace(window, latency=Latency())
    if window.digest and known is None:
        problems.append("foreign: this device was never given that model")
    problems += filter(None, (_features(window), _baseline(window, known)))
    end = _end(window.end, now)
    most = {name: min(getattr(window, name), _MOST) for name in ("dropped", "pending")}
    window = msgspec.structs.replace(window, **most)
    return Examined(
        window=window,
        known=known,
        start=end - timedelta(seconds=window.seconds),
        end=end,
        samples=min(max((feature.n for feature in window.features), default=0), _MOST),
        refused="; ".join(problems),
    )


def reason(refused: str) -> str:
    """The one word that a refusal is counted by."""
    return refused.partition(":")[0]


def resources(values: Mapping[str, float | int | None]) -> dict[str, float | int]:
    """Those that the device has told."""
    return {name: value for name, value in values.items() if value is not None and abs(value) <= 2**53}


def _end(said: datetime, now: datetime) -> datetime:
    end = said if said.tzinfo is not None else said.replace(tzinfo=UTC)
    try:
        return end if now - _OLDEST <= end <= now else now
    except OverflowError:
        return now


def _uncounted(window: Incoming) -> Incoming:
    nothing = Incoming(boot="", seq=0, start=window.start, end=window.end)
    names = ("requests", "latency", "observed", "unobserved", "features")
    return msgspec.structs.replace(window, **{name: getattr(nothing, name) for name in names})


def _latency(window: Incoming) -> str:
    counts, sum_s = window.latency.counts, window.latency.sum_s
    if len(counts) not in (0, len(LATENCY_BUCKETS) + 1):
        return f"latency: a histogram of {len(counts)} buckets, not {len(LATENCY_BUCKETS) + 1}"
    if sum(counts) > window.requests.total + _LATE or not 0 <= sum_s <= LONGEST.total_seconds() * sum(counts):
        return "latency: its histogram or its sum does not fit the requests"
    return ""


def _features(window: Incoming) -> str:
    features = window.features
    if len(features) > MAX_FEATURES:
        return f"features: {len(features)} of them, at most {MAX_FEATURES} are taken"
    if len({feature.name for feature in features}) != len(features):
        return "features: two have the same name"
    return ""


def _baseline(window: Incoming, known: Known | None) -> str:
    if not window.features:
        return ""
    if not window.digest:
        return "baseline: it has features, but of no model"
    if len(window.baseline) != _MAX_ID or not window.baseline.isalnum():
        return "baseline: a baseline is named by its SHA-256"
    if known is not None and not window.is_learned and window.baseline != known.baseline:
        return "baseline: it is not the one of this model"
    return ""
