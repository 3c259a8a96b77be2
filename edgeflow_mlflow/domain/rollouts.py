"""What a rollout does next: a snapshot and `now` go in, actions and the reason come out.

Whoever carries out the actions (services/advance.py) asks again until there is none; asking twice changes
nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from edgeflow_mlflow import errors
from edgeflow_mlflow.domain import gates, schedule
from edgeflow_mlflow.domain.gates import Facts, Limits, Reading, Verdict
from edgeflow_mlflow.domain.schedule import Window

# So many targets in one transaction.
BATCH = 500


class State(enum.StrEnum):
    """How a rollout stands."""

    RUNNING = "running"
    PAUSED = "paused"
    # ends
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"


class Event(enum.StrEnum):
    """What happens to a rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    SUCCEED = "succeed"
    FAIL = "fail"
    ABORT = "abort"
    SUPERSEDE = "supersede"


TABLE: dict[tuple[State, Event], State] = {
    (State.RUNNING, Event.PAUSE): State.PAUSED,
    (State.RUNNING, Event.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.ABORT): State.ABORTED,
    (State.RUNNING, Event.SUPERSEDE): State.SUPERSEDED,
    (State.PAUSED, Event.RESUME): State.RUNNING,
    (State.PAUSED, Event.FAIL): State.FAILED,
    (State.PAUSED, Event.ABORT): State.ABORTED,
    (State.PAUSED, Event.SUPERSEDE): State.SUPERSEDED,
}
OPEN = frozenset({State.RUNNING, State.PAUSED})
# Whose model devices may be brought back to: it reached everybody, or a newer one came in between.
WORTH_RETURNING = frozenset({State.SUCCEEDED, State.SUPERSEDED})


def after(state: State, event: Event) -> State:
    """The state that follows; raise ConflictError when nothing does."""
    following = TABLE.get((state, event))
    if following is None:
        raise errors.ConflictError(f"a rollout that is {state.value} cannot {event.value}")
    return following


class WaveState(enum.StrEnum):
    """How a wave stands."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    SOAKING = "soaking"
    PASSED = "passed"
    FAILED = "failed"


class OnFailure(enum.StrEnum):
    """What a failing gate leads to."""

    PAUSE = "pause"
    ROLLBACK = "rollback"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a rollout goes: what its maker has said."""

    soak: timedelta = timedelta()
    rate_per_minute: float = 0.0
    start_at: datetime | None = None
    window: Window | None = None
    approval: bool = False
    on_failure: OnFailure = OnFailure.PAUSE
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class Wave:
    """The wave that is under way, counted.

    `waiting` have not been given the model yet, `open` have and are waited for, `retries` may be given it
    once more. Who is held, or was offered it long ago and has not answered, is none of these. `begun` were
    given it since the clock of the rate was started: by the wave, by a resume, or by the window that opened.
    """

    number: int
    state: WaveState
    is_last: bool
    waiting: int = 0
    open: int = 0
    retries: int = 0
    begun: int = 0
    started_at: datetime | None = None
    soak_until: datetime | None = None
    approved: bool = False
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that a decision needs. `clock_from` is when the clock of the rate was started, `seed` what its
    jitter depends on; `can_return` says whether there is a version to go back to."""

    state: State
    plan: Plan
    wave: Wave
    seed: str = ""
    clock_from: datetime | None = None
    can_return: bool = True


@dataclass(frozen=True, kw_only=True)
class StartWave:
    """The wave begins."""


@dataclass(frozen=True, kw_only=True)
class Assign:
    """Give so many waiting targets the model."""

    count: int


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Give so many failed targets the model once more."""

    count: int


@dataclass(frozen=True, kw_only=True)
class Soak:
    """Nobody is waited for; watch until then."""

    until: datetime


@dataclass(frozen=True, kw_only=True)
class PassWave:
    """The wave went well, and the next is scheduled; the last one ends the rollout."""


@dataclass(frozen=True, kw_only=True)
class Halt:
    """A gate failed: pause, and let a person look."""


@dataclass(frozen=True, kw_only=True)
class RollBack:
    """A gate failed: bring everybody back to the version before."""


Action = StartWave | Assign | Retry | Soak | PassWave | Halt | RollBack


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do now (nothing: None), why, and what the gates said."""

    action: Action | None
    why: str
    readings: tuple[Reading, ...] = ()


def decide(snapshot: Snapshot, now: datetime) -> Decision:
    """The next step of a rollout."""
    if snapshot.state is not State.RUNNING:
        return Decision(action=None, why=f"it is {snapshot.state.value}")
    match snapshot.wave.state:
        case WaveState.SCHEDULED:
            return _scheduled(snapshot, now)
        case WaveState.RUNNING:
            return _running(snapshot, now)
        case WaveState.SOAKING:
            return _soaking(snapshot, now)
        case _:
            return Decision(action=None, why=f"wave {snapshot.wave.number} has {snapshot.wave.state.value}")


def _scheduled(snapshot: Snapshot, now: datetime) -> Decision:
    start_at = snapshot.plan.start_at
    if start_at is not None and now < start_at:
        return Decision(action=None, why=f"begins at {_moment(start_at)}")
    if closed := _closed(snapshot.plan, now):
        return Decision(action=None, why=closed)
    return Decision(action=StartWave(), why=f"wave {snapshot.wave.number} begins")


def _running(snapshot: Snapshot, now: datetime) -> Decision:
    plan, wave = snapshot.plan, snapshot.wave
    readings = gates.read(plan.limits, wave.facts)
    if gates.worst(readings) is Verdict.FAIL:
        return _failed(snapshot, readings)
    if wave.waiting or wave.retries:
        if closed := _closed(plan, now):
            return Decision(action=None, why=closed, readings=readings)
        elapsed = now - (snapshot.clock_from or wave.started_at or now)
        allowed = schedule.allowance(plan.rate_per_minute, elapsed, wave.begun, snapshot.seed)
        batch = BATCH if allowed is None else min(allowed, BATCH)
        if wave.retries and batch:
            count = min(wave.retries, batch)
            return Decision(action=Retry(count=count), why=f"{count} more tries", readings=readings)
        if wave.waiting and batch:
            count = min(wave.waiting, batch)
            return Decision(action=Assign(count=count), why=f"{count} more targets", readings=readings)
        if wave.waiting:
            rate = f"{plan.rate_per_minute:g} targets a minute"
            return Decision(
                action=None, why=f"{wave.waiting} targets wait their turn, {rate}", readings=readings
            )
    if wave.open:
        return Decision(
            action=None, why=f"{wave.open} devices of wave {wave.number} are on their way", readings=readings
        )
    return Decision(action=Soak(until=now + plan.soak), why="nobody is waited for", readings=readings)


def _soaking(snapshot: Snapshot, now: datetime) -> Decision:
    plan, wave = snapshot.plan, snapshot.wave
    readings = gates.read(plan.limits, wave.facts)
    verdict = gates.worst(readings)
    if verdict is Verdict.FAIL:
        return _failed(snapshot, readings)
    if wave.soak_until is not None and now < wave.soak_until:
        return Decision(action=None, why=f"watched until {_moment(wave.soak_until)}", readings=readings)
    if verdict is Verdict.WAIT and not wave.approved:
        waits = "; ".join(reading.text for reading in readings if reading.verdict is Verdict.WAIT)
        waits += "; who approves it goes on without"
        return Decision(action=None, why=waits, readings=readings)
    if plan.approval and not wave.approved and not wave.is_last:
        why = f"wave {wave.number + 1} waits for somebody to approve it"
        return Decision(action=None, why=why, readings=readings)
    return Decision(action=PassWave(), why=f"wave {wave.number} passed", readings=readings)


def _failed(snapshot: Snapshot, readings: tuple[Reading, ...]) -> Decision:
    why = "; ".join(reading.text for reading in readings if reading.verdict is Verdict.FAIL)
    if snapshot.plan.on_failure is OnFailure.ROLLBACK:
        if snapshot.can_return:
            return Decision(action=RollBack(), why=why, readings=readings)
        why += "; there is no version before to go back to"
    return Decision(action=Halt(), why=why, readings=readings)


def _closed(plan: Plan, now: datetime) -> str:
    if plan.window is None or plan.window.opened(now) is not None:
        return ""
    return f"the maintenance window opens at {_moment(plan.window.opens(now))}"


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
