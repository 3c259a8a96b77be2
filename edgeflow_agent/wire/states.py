"""States of an execution (one target's part of a rollout) and the steps between them, as one table.

    pending -> offered -> accepted -> downloading -> verifying -> loading -> trial -> deployed

`pending` and `offered` belong to the server; from `accepted` on the device reports. Every report may
be lost, so a later state may follow any earlier one; a backward step, or a step out of an end, is
refused and goes to history only. One end may still become another: a device that gives up what it had
deployed has `rolled_back`.
"""

from __future__ import annotations

import enum


class State(enum.StrEnum):
    """What an execution is doing, or how it ended."""

    PENDING = "pending"
    OFFERED = "offered"
    ACCEPTED = "accepted"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    LOADING = "loading"
    TRIAL = "trial"
    # ends
    DEPLOYED = "deployed"
    REJECTED = "rejected"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


PROGRESS = (
    State.PENDING,
    State.OFFERED,
    State.ACCEPTED,
    State.DOWNLOADING,
    State.VERIFYING,
    State.LOADING,
    State.TRIAL,
)
TERMINAL = frozenset(State) - frozenset(PROGRESS)

# Ends that the server alone decides; a device that reports one of them breaks the contract.
SERVER_ENDS = frozenset({State.TIMED_OUT, State.SUPERSEDED})
DEVICE_STATES = frozenset(State) - SERVER_ENDS - {State.PENDING, State.OFFERED}


NEXT: dict[State, frozenset[State]] = {
    state: frozenset(PROGRESS[index + 1 :]) | TERMINAL for index, state in enumerate(PROGRESS)
}
NEXT.update({state: frozenset() for state in TERMINAL})
NEXT[State.DEPLOYED] = frozenset({State.ROLLED_BACK})


def is_terminal(state: State) -> bool:
    """Whether nobody waits for anything more."""
    return state in TERMINAL


def may_follow(current: State, new: State) -> bool:
    """Whether `new` may replace `current`; the same state again (a repeat) may not."""
    return new in NEXT[current]
