"""What one deployment does next on this device, as one table: (state, event) -> (state, effects).

The executor (`runtime/deployer.py`) saves the new state, then reports it, then carries out the effects;
the last effect answers with the next event. A pair that the table does not list is a bug.
"""

from __future__ import annotations

import dataclasses
import enum

from edgeflow_agent import errors
from edgeflow_agent.wire.states import State


class Work(enum.StrEnum):
    """What kind of work a deployment is for this device."""

    INSTALL = "install"  # fetch, check, load, swap
    ADOPT = "adopt"  # what is asked for is served already: take over its names
    HOLD = "hold"  # keep serving whatever is served
    REMOVE = "remove"  # stop serving


class Event(enum.StrEnum):
    """What has happened."""

    START = "start"  # an install begins
    START_ADOPT = "start_adopt"
    START_HOLD = "start_hold"
    START_REMOVE = "start_remove"
    DONE = "done"  # the effect of this state succeeded
    FAILED = "failed"  # it did not, and trying again would not help
    CANCELLED = "cancelled"  # a newer document took its place


class Effect(enum.StrEnum):
    """What is to be done. Each may run twice with the same outcome."""

    FETCH = "fetch"  # bring every file into the content store
    VERIFY = "verify"  # hash them again and lay the release out
    LOAD = "load"  # trial load in a child process, then load and warm up here
    ASK = "ask"  # wait until the device may exchange its model
    ACTIVATE = "activate"  # `previous` and `current` on disk, then the swap in memory
    WATCH = "watch"  # wait for the verdict of the trial
    COMMIT = "commit"  # let the old model go, collect garbage
    REVERT = "revert"  # back to what served before, on disk and in memory
    DISCARD = "discard"  # drop what was laid out
    ADOPT = "adopt"  # write the new names into the release that serves
    UNLOAD = "unload"  # stop serving


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """The state to save and the effects to carry out after that."""

    state: State
    effects: tuple[Effect, ...] = ()


def _to(state: State, *effects: Effect) -> Step:
    return Step(state=state, effects=effects)


TABLE: dict[tuple[State, Event], Step] = {
    (State.ACCEPTED, Event.START): _to(State.DOWNLOADING, Effect.FETCH),
    (State.ACCEPTED, Event.START_ADOPT): _to(State.DEPLOYED, Effect.ADOPT),
    (State.ACCEPTED, Event.START_HOLD): _to(State.DEPLOYED),
    (State.ACCEPTED, Event.START_REMOVE): _to(State.DEPLOYED, Effect.UNLOAD),
    (State.ACCEPTED, Event.FAILED): _to(State.FAILED),
    (State.ACCEPTED, Event.CANCELLED): _to(State.CANCELLED),
    (State.DOWNLOADING, Event.DONE): _to(State.VERIFYING, Effect.VERIFY),
    (State.DOWNLOADING, Event.FAILED): _to(State.FAILED, Effect.DISCARD),
    (State.DOWNLOADING, Event.CANCELLED): _to(State.CANCELLED, Effect.DISCARD),
    (State.VERIFYING, Event.DONE): _to(State.LOADING, Effect.LOAD, Effect.ASK),
    (State.VERIFYING, Event.FAILED): _to(State.FAILED, Effect.DISCARD),
    (State.VERIFYING, Event.CANCELLED): _to(State.CANCELLED, Effect.DISCARD),
    (State.LOADING, Event.DONE): _to(State.TRIAL, Effect.ACTIVATE, Effect.WATCH),
    (State.LOADING, Event.FAILED): _to(State.FAILED, Effect.DISCARD),
    (State.LOADING, Event.CANCELLED): _to(State.CANCELLED, Effect.DISCARD),
    (State.TRIAL, Event.DONE): _to(State.DEPLOYED, Effect.COMMIT),
    (State.TRIAL, Event.FAILED): _to(State.ROLLED_BACK, Effect.REVERT, Effect.DISCARD),
    (State.TRIAL, Event.CANCELLED): _to(State.CANCELLED, Effect.REVERT, Effect.DISCARD),
}

STARTS: dict[Work, Event] = {
    Work.INSTALL: Event.START,
    Work.ADOPT: Event.START_ADOPT,
    Work.HOLD: Event.START_HOLD,
    Work.REMOVE: Event.START_REMOVE,
}


def advance(state: State, event: Event) -> Step:
    """The next step; raise StateError when the pair is not in the table."""
    step = TABLE.get((state, event))
    if step is None:
        raise errors.StateError(f"nothing is known to follow {event.value} in state {state.value}")
    return step
