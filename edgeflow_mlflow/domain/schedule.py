"""When targets may be given something new: maintenance windows, and so many a minute."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from edgeflow_mlflow import errors
from edgeflow_mlflow.domain.waves import place

LONGEST = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Open for `minutes` from each moment that `cron` names, by the clock of `zone`."""

    cron: str
    minutes: int
    zone: str = "UTC"

    def opened(self, now: datetime) -> datetime | None:
        """Since when it is open at `now`; None when it is closed."""
        local = now.astimezone(ZoneInfo(self.zone))
        # The search gives moments before its start: one that is right now counts as well.
        begin = next(CronSim(self.cron, local + timedelta(minutes=1), reverse=True))
        since = begin.astimezone(UTC)
        return since if since <= now < since + timedelta(minutes=self.minutes) else None

    def opens(self, now: datetime) -> datetime:
        """When it opens next, after `now`."""
        return next(CronSim(self.cron, now.astimezone(ZoneInfo(self.zone)))).astimezone(UTC)


def window(cron: str, minutes: int, zone: str = "UTC") -> Window:
    """A window that can be; raise InvalidError that says what cannot."""
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise errors.InvalidError(f"{zone!r} is no time zone: write one such as Europe/Paris") from error
    if not 1 <= minutes <= LONGEST // timedelta(minutes=1):
        raise errors.InvalidError("a maintenance window lasts from 1 minute to 7 days")
    try:
        next(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        raise errors.InvalidError(
            f"{cron!r} is no schedule: write five fields as cron does, for example '0 2 * * 1-5' for two "
            "o'clock on working days"
        ) from error
    return Window(cron=cron, minutes=minutes, zone=zone)


def allowance(rate_per_minute: float, elapsed: timedelta, begun: int, seed: str) -> int | None:
    """How many more targets may begin now, when `begun` have begun since the clock was started; None: all.

    Target number i begins within the i-th slot of 60 / rate seconds, where in it says the seed: a fleet does
    not ask its server for files in step.
    """
    if rate_per_minute <= 0:
        return None
    slots = max(elapsed.total_seconds(), 0.0) * rate_per_minute / 60
    whole = math.floor(slots)
    # The first of all begins at once: who waits for a canary should not wait for a dice.
    due = whole + (1 if whole == 0 or place(seed, str(whole)) <= slots - whole else 0)
    return max(0, due - begun)
