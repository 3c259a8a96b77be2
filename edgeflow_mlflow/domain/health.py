"""What is wrong with a target, in words that an operator filters by."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from edgeflow_agent.wire import states
from edgeflow_agent.wire.states import State as Step

_WENT_WRONG = frozenset({Step.REJECTED, Step.FAILED, Step.ROLLED_BACK, Step.TIMED_OUT})


class Flag(enum.StrEnum):
    """One thing to know of a target; several may hold. `online` holds with any of the others."""

    ONLINE = "online"
    OFFLINE = "offline"
    NEVER_SEEN = "never_seen"
    STALE = "stale"  # serves a model whose order has expired
    FAILING = "failing"  # its newest order went wrong
    DRIFTING = "drifting"  # an alarm on what its model sees or says
    UPDATING = "updating"  # on its way to another model
    BEHIND = "behind"  # online, and serves something else than it should
    HELD = "held"  # left out of rollouts


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the flags are made from."""

    was_seen: bool
    is_online: bool
    is_stale: bool = False
    is_held: bool = False
    in_sync: bool = True
    drift_alarms: int = 0
    step: Step | None = None


def flags(facts: Facts) -> tuple[Flag, ...]:
    """All that holds, in the order of the enumeration."""
    is_open = facts.step is not None and not states.is_terminal(facts.step)
    holds = {
        Flag.ONLINE: facts.is_online,
        Flag.OFFLINE: facts.was_seen and not facts.is_online,
        Flag.NEVER_SEEN: not facts.was_seen,
        Flag.STALE: facts.is_stale,
        Flag.FAILING: facts.step in _WENT_WRONG,
        Flag.DRIFTING: facts.drift_alarms > 0,
        Flag.UPDATING: is_open,
        Flag.BEHIND: facts.is_online and not facts.in_sync and not is_open,
        Flag.HELD: facts.is_held,
    }
    return tuple(flag for flag in Flag if holds[flag])
