"""When whom is told of what: alerts go out in groups, after a wait, and again while they last.

An episode is one life of an alert, from firing to resolved. Whoever was told that one began is told that it
ended, silenced or not; whoever was not told of the beginning hears nothing of the end.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


class Reason(enum.StrEnum):
    """Why somebody is told."""

    FIRED = "fired"  # an episode began
    RESOLVED = "resolved"  # all have ended
    CHANGED = "changed"  # some have ended, others last
    REPEATED = "repeated"  # they last, and nobody has acknowledged all of them
    TEST = "test"  # somebody tries the receiver out


@dataclass(frozen=True, kw_only=True)
class Pace:
    """`wait`: so long news are collected. `interval`: least time between two notifications of a group.
    `repeat`: after so long it is told again that they last."""

    wait: timedelta = timedelta(seconds=30)
    interval: timedelta = timedelta(minutes=5)
    repeat: timedelta = timedelta(hours=4)
    send_resolved: bool = True


@dataclass(frozen=True, kw_only=True)
class Episode:
    """An alert that fires, and belongs to the group. `muted`: silenced or hushed by another."""

    id: int
    muted: bool = False
    acknowledged: bool = False


@dataclass(frozen=True, kw_only=True)
class Group:
    """What was told: the episodes that began and have not ended for the receiver, when it was told last, and
    since when there are news that it was not told."""

    told: frozenset[int] = frozenset()
    told_at: datetime | None = None
    news_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What follows: the group (None: it can be forgotten), and what to tell (no reason: nothing)."""

    group: Group | None
    reason: Reason | None = None
    firing: tuple[int, ...] = ()
    resolved: tuple[int, ...] = ()


def turn(group: Group, members: Sequence[Episode], alive: Collection[int], now: datetime, pace: Pace) -> Turn:
    """One look at a group. `members` fire and belong to it now; `alive` fire at all."""
    belongs = {item.id for item in members}
    firing = {item.id for item in members if not item.muted}
    ended = {item for item in group.told if item not in alive}
    # What fires but is another receiver's by now is nobody's news.
    told = (group.told & belongs) | ended
    if not pace.send_resolved:
        told, ended = told - ended, set()
    fresh = firing - told
    news_at = (group.news_at or now) if fresh or ended else None
    rested = group.told_at is None or now >= group.told_at + pace.interval
    reason = None
    if news_at is not None and now >= news_at + pace.wait and rested:
        reason = Reason.FIRED if fresh else Reason.CHANGED if firing else Reason.RESOLVED
    elif group.told_at is not None and now >= group.told_at + pace.repeat and _lasts(members):
        reason = Reason.REPEATED
    if reason is not None:
        return Turn(
            group=Group(told=frozenset(told - ended | firing), told_at=now),
            reason=reason,
            firing=tuple(sorted(firing)),
            resolved=tuple(sorted(ended)),
        )
    if not told and news_at is None and rested:
        return Turn(group=None)
    return Turn(group=dataclasses.replace(group, told=frozenset(told), news_at=news_at))


def _lasts(members: Sequence[Episode]) -> bool:
    return any(not item.muted and not item.acknowledged for item in members)


def labels_of(labels: Mapping[str, str], group_by: Sequence[str]) -> dict[str, str]:
    """The labels that make a group of an alert."""
    return {name: labels.get(name, "") for name in sorted(group_by)}


def key(receiver: str, labels: Mapping[str, str]) -> str:
    """The group's name as receivers see it."""
    inner = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{receiver}:{{{inner}}}"


def hashed(text: str) -> str:
    """A key of bounded length."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
