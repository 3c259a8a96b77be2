"""What a report, a presence or the passing of time makes of an execution. Values in, decision out."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from edgeflow_agent.wire import documents, states
from edgeflow_agent.wire.states import State


class Decision(enum.StrEnum):
    """What becomes of a report; stored beside it, so that history explains itself."""

    APPLIED = "applied"
    REPEATED = "repeated"  # the execution is in that state already
    TOO_LATE = "too_late"  # the execution has ended: ends stick
    BACKWARD = "backward"  # an earlier step arrived after a later one
    NOT_A_DEVICE_STATE = "not_a_device_state"  # only the server decides that end
    NO_EXECUTION = "no_execution"  # names none, or one of another target
    WAITING = "waiting"  # the document had expired: the device takes it up when it gets a fresh one


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long an execution may wait for a device, and how long a device may be silent in the middle."""

    offline: timedelta
    progress: timedelta


def decide(current: State | None, report: documents.Report) -> Decision:
    """What a report does to an execution in state `current` (None: there is no such execution)."""
    if current is None:
        return Decision.NO_EXECUTION
    if report.state not in states.DEVICE_STATES:
        return Decision.NOT_A_DEVICE_STATE
    if states.is_terminal(current):
        is_allowed = states.may_follow(current, report.state)
        return Decision.APPLIED if is_allowed else Decision.TOO_LATE
    if report.state is State.REJECTED and report.reason == "expired":
        return Decision.WAITING
    if report.state is current:
        return Decision.REPEATED
    return Decision.APPLIED if states.may_follow(current, report.state) else Decision.BACKWARD


def deadline(state: State, now: datetime, deadlines: Deadlines) -> datetime | None:
    """When an execution that enters or repeats `state` now is given up; None for an end."""
    if states.is_terminal(state):
        return None
    if state in (State.PENDING, State.OFFERED):
        return now + deadlines.offline
    return now + deadlines.progress


def converged(
    *,
    execution: str,
    generation: int,
    action: documents.Action,
    digest: str,
    presence: documents.Presence,
) -> bool:
    """Whether what a device says it serves proves that it carried out an execution, even though the
    report of it was lost."""
    if presence.generation < generation:
        return False
    if action is documents.Action.INSTALL:
        return presence.execution == execution and presence.serving and presence.digest == digest
    if action is documents.Action.REMOVE:
        return not presence.serving and not presence.digest
    return True


def next_generation(current: int, floor: int) -> int:
    """The generation after `current`, or above what a device has already handled for good: a server
    restored from a backup must not be stuck below its devices."""
    return max(current, floor) + 1


def is_plausible_floor(current: int, floor: int) -> bool:
    """A device may not push its own counter to the end of the range."""
    return floor <= current + 10**6
