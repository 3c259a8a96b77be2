"""When a device exchanges its credential for a new one."""

from __future__ import annotations

from datetime import datetime

_DAY_S = 24 * 3600.0


def is_due(since: datetime | None, now: datetime, days: float) -> bool:
    """Whether a credential that is in use `since` then is older than `days`; 0 days: never. One of unknown
    age is due. One from the future is not: the device's clock is wrong now, and will be right again."""
    if days <= 0:
        return False
    return since is None or (now - since).total_seconds() >= days * _DAY_S
