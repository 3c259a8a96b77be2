"""What a saved state becomes after a power cut: the resume table beside the machine's, and the loop guard.

A crash leaves either the work of a state half done (do it again: every effect may run twice) or an end
that was saved but not settled (its effects run again and it is reported again).
"""

from __future__ import annotations

import dataclasses
import enum

from edgeflow_agent.core import machine
from edgeflow_agent.core.machine import Effect, Step, Work
from edgeflow_agent.wire.states import State

# Dying this often in a state that runs a new model is the model's verdict.
MAX_TRIES = 3
# An execution that saves its state this often goes round in circles, whatever the reason.
MAX_SAVES = 100


class Resumption(enum.StrEnum):
    """Why a saved deployment goes on as it does."""

    CONTINUE = "continue"
    ENDED = "ended"  # the end was saved: carry out its effects again and settle
    DIED_LOADING = "died_loading"
    DIED_ON_TRIAL = "died_on_trial"
    LOOPING = "looping"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The step to take up after a restart, and why."""

    why: Resumption
    step: Step
    reason: str = ""
    message: str = ""


RESUME: dict[State, tuple[Effect, ...]] = {
    State.DOWNLOADING: (Effect.FETCH,),
    State.VERIFYING: (Effect.VERIFY,),
    State.LOADING: (Effect.LOAD, Effect.ASK),
    State.TRIAL: (Effect.ACTIVATE, Effect.WATCH),
    State.FAILED: (Effect.DISCARD,),
    State.ROLLED_BACK: (Effect.REVERT, Effect.DISCARD),
    State.REJECTED: (),
}

_ENDED_WELL: dict[Work, tuple[Effect, ...]] = {
    Work.INSTALL: (Effect.COMMIT,),
    Work.ADOPT: (Effect.ADOPT,),
    Work.HOLD: (),
    Work.REMOVE: (Effect.UNLOAD,),
}


def resume(state: State, work: Work, *, tries: int, saves: int, activated: bool) -> Plan:
    """What to do with a deployment that was saved in `state`.

    `tries` counts the deaths in this state, this one included; `activated` says whether the trial had
    begun (its release may be `current`).
    """
    if state in (State.DEPLOYED, State.CANCELLED, State.FAILED, State.ROLLED_BACK, State.REJECTED):
        return Plan(why=Resumption.ENDED, step=Step(state=state, effects=_end(state, work, activated)))
    if saves > MAX_SAVES:
        end = State.ROLLED_BACK if activated else State.FAILED
        return Plan(
            why=Resumption.LOOPING,
            step=Step(state=end, effects=_end(end, work, activated)),
            reason="loop",
            message=f"gave up after {saves} saved steps",
        )
    if state is State.TRIAL and tries >= MAX_TRIES:
        return Plan(
            why=Resumption.DIED_ON_TRIAL,
            step=machine.advance(State.TRIAL, machine.Event.FAILED),
            reason="trial_crash",
            message=f"the agent died {tries} times while the model was on trial",
        )
    if state is State.LOADING and tries >= MAX_TRIES:
        return Plan(
            why=Resumption.DIED_LOADING,
            step=machine.advance(State.LOADING, machine.Event.FAILED),
            reason="load_crash",
            message=f"the agent died {tries} times while it loaded the model",
        )
    if state is State.ACCEPTED:
        return Plan(why=Resumption.CONTINUE, step=machine.advance(state, machine.STARTS[work]))
    return Plan(why=Resumption.CONTINUE, step=Step(state=state, effects=RESUME[state]))


def _end(state: State, work: Work, activated: bool) -> tuple[Effect, ...]:
    if state is State.DEPLOYED:
        return _ENDED_WELL[work]
    if work is not Work.INSTALL:
        return ()
    if state is State.CANCELLED:
        return (Effect.REVERT, Effect.DISCARD) if activated else (Effect.DISCARD,)
    return RESUME[state]
