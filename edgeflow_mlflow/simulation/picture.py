"""A fleet at a glance: how many devices serve what, and how far they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from edgeflow_mlflow.simulation.device import Device

_BAD = ("failed", "rolled_back")


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle, and how many devices serve it."""

    name: str
    version: str
    digest: str
    devices: int


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """One moment. `states` counts the newest deployment of each device, `failed` those that ended badly;
    messages are those by MQTT since the start."""

    seconds: float
    devices: int
    connected: int
    away: int
    serving: int
    failed: int
    models: list[Model]
    states: dict[str, int]
    reasons: dict[str, int]
    waiting_reports: int
    sent: int
    received: int
    requests: int
    downloaded_bytes: int
    cpu_s: float
    rss_mb: float


def look(
    devices: Iterable[Device],
    *,
    seconds: float,
    sent: int = 0,
    received: int = 0,
    requests: int = 0,
    downloaded_bytes: int = 0,
    cpu_s: float = 0.0,
    rss_mb: float = 0.0,
) -> Picture:
    """What there is to see now."""
    models: Counter[tuple[str, str, str]] = Counter()
    states: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    count = connected = away = waiting = 0
    for device in devices:
        count += 1
        connected += device.linked
        away += device.away
        waiting += device.waiting
        served, last = device.memory.served, device.memory.last
        if served is not None:
            models[served.model.name, served.model.version, served.digest] += 1
        states[last.state or "nothing yet"] += 1
        if last.reason:
            reasons[last.reason] += 1
    return Picture(
        seconds=round(seconds, 1),
        devices=count,
        connected=connected,
        away=away,
        serving=models.total(),
        failed=sum(states[state] for state in _BAD),
        models=[
            Model(name=name, version=version, digest=digest, devices=number)
            for (name, version, digest), number in sorted(models.items())
        ],
        states=dict(sorted(states.items())),
        reasons=dict(sorted(reasons.items())),
        waiting_reports=waiting,
        sent=sent,
        received=received,
        requests=requests,
        downloaded_bytes=downloaded_bytes,
        cpu_s=round(cpu_s, 2),
        rss_mb=round(rss_mb, 1),
    )
