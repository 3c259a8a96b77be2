"""How long to wait before a notification is sent once more, and when to give up."""

from __future__ import annotations

from datetime import datetime, timedelta

_FIRST = timedelta(seconds=5)
_LONGEST = timedelta(minutes=15)
# A receiver may ask for patience, but not for so much that nobody would notice.
_MOST_PATIENCE = timedelta(hours=1)
GIVE_UP = timedelta(days=1)
# Longer than any one try takes: until then nobody else tries the same.
LEASE = timedelta(seconds=60)


def wait(attempts: int, asked_s: float | None = None) -> timedelta:
    """How long after so many tries the next may begin; `asked_s` is what the receiver asked for."""
    usual = min(_LONGEST, _FIRST * (1 << min(max(attempts, 1) - 1, 10)))
    if asked_s is None or not asked_s > 0:
        return usual
    return max(usual, min(timedelta(seconds=min(asked_s, 86400.0)), _MOST_PATIENCE))


def is_hopeless(created_at: datetime, now: datetime) -> bool:
    """Whether it has been tried for long enough."""
    return now >= created_at + GIVE_UP
