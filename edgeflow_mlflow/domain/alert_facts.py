"""What alert rules look at, and what they find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class TargetFact:
    """A device. `expected`: it may still speak, and has spoken. `wanted` is the digest that its finished
    execution brought (empty: none), `wanted_name` the model version of it. `known` has the labels, and what
    the device says of itself, for selectors."""

    id: str
    online: bool = True
    expected: bool = True
    last_seen_at: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[str, str] = field(default_factory=dict)
    fleets: tuple[str, ...] = ()
    deployment: str = ""
    model: str = ""
    version: str = ""
    digest: str = ""
    wanted: str = ""
    wanted_name: str = ""


@dataclass(frozen=True, kw_only=True)
class Load:
    """The windows of one device and model version over some minutes, summed."""

    target: str
    deployment: str = ""
    model: str = ""
    version: str = ""
    requests: float = 0
    failed: float = 0
    rejected: float = 0
    latency: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Newest:
    """What a device's newest window says; `dropped` is by how much its count of lost windows rose."""

    disk_free_ratio: float | None = None
    disk_free_bytes: float | None = None
    temperature_c: float | None = None
    dropped: float = 0


@dataclass(frozen=True, kw_only=True)
class DriftFact:
    """A feature whose verdicts agree that it has drifted."""

    scope: str
    scope_id: str
    feature: str
    kind: str
    model: str
    version: str
    digest: str
    signal: str = ""


@dataclass(frozen=True, kw_only=True)
class RolloutFact:
    """A rollout that a gate paused, or that failed."""

    deployment: str
    number: int
    model: str
    version: str
    state: str
    why: str
    finished_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that rules look at. `loads` and `newest` are by the minutes that they cover; `heard` are those
    whose telemetry came within so many minutes, `speakers` those that ever sent any."""

    now: datetime
    targets: Mapping[str, TargetFact] = field(default_factory=dict)
    loads: Mapping[int, Sequence[Load]] = field(default_factory=dict)
    newest: Mapping[int, Mapping[str, Newest]] = field(default_factory=dict)
    heard: Mapping[int, frozenset[str]] = field(default_factory=dict)
    speakers: frozenset[str] = frozenset()
    drift: Sequence[DriftFact] = ()
    rollouts: Sequence[RolloutFact] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that holds: the labels that name its object, further words for the annotations, and if it is
    about a device that device's own labels and fleets."""

    labels: Mapping[str, str]
    words: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    fleets: tuple[str, ...] = ()
