"""The life of an alert, and its name: a look and `now` go in, the life that follows comes out.

Whoever looks (services/alerting.py) looks again and again; looking twice at the same moment changes nothing.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta


class Phase(enum.StrEnum):
    """How an alert stands."""

    INACTIVE = "inactive"
    PENDING = "pending"  # it holds, but not for long enough yet
    FIRING = "firing"
    RESOLVED = "resolved"


class Sign(enum.StrEnum):
    """What a look says."""

    HOLDS = "holds"  # for less than `hold`
    LASTS = "lasts"  # for `hold` at least
    FADES = "fades"  # no more, but for less than `keep`
    OVER = "over"  # no more


TABLE: dict[tuple[Phase, Sign], Phase] = {
    (Phase.INACTIVE, Sign.HOLDS): Phase.PENDING,
    (Phase.INACTIVE, Sign.LASTS): Phase.FIRING,
    (Phase.INACTIVE, Sign.FADES): Phase.INACTIVE,
    (Phase.INACTIVE, Sign.OVER): Phase.INACTIVE,
    (Phase.PENDING, Sign.HOLDS): Phase.PENDING,
    (Phase.PENDING, Sign.LASTS): Phase.FIRING,
    (Phase.PENDING, Sign.FADES): Phase.INACTIVE,
    (Phase.PENDING, Sign.OVER): Phase.INACTIVE,
    (Phase.FIRING, Sign.HOLDS): Phase.FIRING,
    (Phase.FIRING, Sign.LASTS): Phase.FIRING,
    (Phase.FIRING, Sign.FADES): Phase.FIRING,
    (Phase.FIRING, Sign.OVER): Phase.RESOLVED,
    (Phase.RESOLVED, Sign.HOLDS): Phase.PENDING,
    (Phase.RESOLVED, Sign.LASTS): Phase.FIRING,
    (Phase.RESOLVED, Sign.FADES): Phase.RESOLVED,
    (Phase.RESOLVED, Sign.OVER): Phase.RESOLVED,
}


@dataclass(frozen=True, kw_only=True)
class Timing:
    """`hold`: how long it must hold before it fires. `keep`: how long it goes on firing when it holds no
    more. `gap`: after how long without a look nobody knows whether it held, and `hold` begins anew."""

    hold: timedelta = timedelta()
    keep: timedelta = timedelta()
    gap: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Life:
    """Since when it holds, when it was looked at last while it was pending, when it fired, since when it
    holds no more, and when it was resolved."""

    phase: Phase = Phase.INACTIVE
    active_at: datetime | None = None
    looked_at: datetime | None = None
    fired_at: datetime | None = None
    cleared_at: datetime | None = None
    resolved_at: datetime | None = None


def step(life: Life, holds: bool, now: datetime, timing: Timing) -> Life:
    """The life after a look that found that it holds, or does not."""
    since = _since(life, now, timing)
    cleared = life.cleared_at or now
    if holds:
        sign = Sign.LASTS if now - since >= timing.hold else Sign.HOLDS
    else:
        sign = Sign.FADES if now - cleared < timing.keep else Sign.OVER
    phase = TABLE[life.phase, sign]
    match phase:
        case Phase.INACTIVE:
            return Life()
        case Phase.PENDING:
            return Life(phase=phase, active_at=since, looked_at=now)
        case Phase.FIRING if life.phase is Phase.FIRING:
            return dataclasses.replace(life, cleared_at=None if holds else cleared)
        case Phase.FIRING:
            return Life(phase=phase, active_at=since, fired_at=now)
        case Phase.RESOLVED if life.phase is Phase.FIRING:
            return dataclasses.replace(life, phase=phase, cleared_at=cleared, resolved_at=now)
    return life


def _since(life: Life, now: datetime, timing: Timing) -> datetime:
    if life.phase is Phase.FIRING:
        return life.active_at or now
    if life.phase is not Phase.PENDING or life.active_at is None or life.looked_at is None:
        return now
    return life.active_at if now - life.looked_at <= timing.gap else now


def fingerprint(labels: Mapping[str, str]) -> str:
    """The name of an alert: the same labels in any order give the same, other labels another."""
    told = "".join(f"{len(name)}:{name}{len(value)}:{value}" for name, value in sorted(labels.items()))
    return hashlib.sha256(told.encode()).hexdigest()[:16]
