"""What to do with a device that has something to do with a bad data set."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Bond(enum.StrEnum):
    """How a device has to do with a tainted model."""

    SERVES = "serves"  # it answers with it
    WANTED = "wanted"  # it is to serve it
    FALLBACK = "fallback"  # it keeps it to fall back on


class Remedy(enum.StrEnum):
    """What is done about it."""

    ROLL_OUT = "roll_out"  # its deployment goes to another version
    FOLLOWS = "follows"  # its deployment has a clean version already, and the device will get it
    CLEAR = "clear_fallback"  # it serves a clean model and is told to forget the other
    HOLD = "hold"  # there is nothing to go to: nothing new comes to it
    UNMANAGED = "unmanaged"  # no deployment holds it: somebody has to deploy to it


class Status(enum.StrEnum):
    """How far a device is."""

    CORRECTED = "corrected"
    UNDER_WAY = "under_way"
    OFFLINE = "offline"  # under way, but it is not there
    HELD = "held"
    UNMANAGED = "unmanaged"
    FAILED = "failed"  # it could not be begun
    GONE = "gone"  # the target was deleted


@dataclass(frozen=True, kw_only=True)
class Stand:
    """A device as it stands: which of its models are tainted, and whether there is something to go to."""

    serves: bool
    wanted: bool
    fallback: bool
    is_deployed: bool
    has_alternative: bool


def bonds(stand: Stand) -> tuple[Bond, ...]:
    """How it has to do with a tainted model."""
    found = ((stand.serves, Bond.SERVES), (stand.wanted, Bond.WANTED), (stand.fallback, Bond.FALLBACK))
    return tuple(bond for is_so, bond in found if is_so)


def remedy(stand: Stand) -> Remedy:
    """What is to be done."""
    if stand.wanted:
        return Remedy.ROLL_OUT if stand.has_alternative else Remedy.HOLD
    if not stand.is_deployed:
        return Remedy.UNMANAGED
    return Remedy.FOLLOWS if stand.serves else Remedy.CLEAR


def status(stand: Stand | None, *, decided: Remedy, is_online: bool, is_held: bool, error: str) -> Status:
    """How far a device is; `stand` is None when it was deleted."""
    if stand is None:
        return Status.GONE
    if not (stand.serves or stand.wanted or stand.fallback):
        return Status.CORRECTED
    if decided is Remedy.UNMANAGED and not stand.is_deployed:
        return Status.UNMANAGED
    if error:
        return Status.FAILED
    if is_held and (stand.serves or stand.wanted):
        return Status.HELD  # nothing comes to it until it is released
    return Status.UNDER_WAY if is_online else Status.OFFLINE


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A version that a device could go to."""

    number: int
    is_tainted: bool
    is_deployable: bool


def newest_clean(candidates: Iterable[Candidate]) -> int | None:
    """The newest version that does not come from the data set and that a device can run."""
    clean = [item.number for item in candidates if item.is_deployable and not item.is_tainted]
    return max(clean, default=None)
