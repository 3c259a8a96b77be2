"""One word for a rollout, from the states of its executions."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable

from edgeflow_agent.wire import states
from edgeflow_agent.wire.states import State

_FAILED = frozenset({State.REJECTED, State.FAILED, State.ROLLED_BACK, State.TIMED_OUT})


class Status(enum.StrEnum):
    """How a rollout stands."""

    RUNNING = "running"  # at least one target is on its way, or waits for its wave
    PAUSED = "paused"  # by a person or a gate
    DEPLOYED = "deployed"  # every target serves it
    FAILED = "failed"  # all have ended and at least one went wrong
    SUPERSEDED = "superseded"  # all have ended and a newer rollout took over
    EMPTY = "empty"  # no target


def status(executions: Iterable[State]) -> Status:
    """Superseded and cancelled targets do not count against a rollout."""
    counts = Counter(executions)
    if not counts:
        return Status.EMPTY
    if any(not states.is_terminal(state) for state in counts):
        return Status.RUNNING
    if any(counts[state] for state in _FAILED):
        return Status.FAILED
    return Status.DEPLOYED if counts[State.DEPLOYED] else Status.SUPERSEDED
