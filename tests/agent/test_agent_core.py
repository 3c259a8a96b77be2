"""The pure decisions: machine, plan, recovery, backoff."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent import errors
from edgeflow_agent.core import backoff, machine, plan, recovery
from edgeflow_agent.core.machine import Effect, Event, Work
from edgeflow_agent.core.plan import Actual, Decision
from edgeflow_agent.testing import file_ref
from edgeflow_agent.wire import documents, states
from edgeflow_agent.wire.documents import Action, DesiredDeployment, DesiredState, Runtime
from edgeflow_agent.wire.states import State

NOW = datetime(2026, 11, 23, tzinfo=UTC)
FILES = (file_ref("model.onnx", b"one"),)


def desired(generation: int, action: Action | None = Action.INSTALL, **changes: Any) -> DesiredState:
    deployment = DesiredDeployment(
        id="d", execution="e", name="n", action=action or Action.HOLD, files=FILES, entry="model.onnx"
    )
    values: dict[str, Any] = {
        "fleet": "f",
        "target": "t",
        "generation": generation,
        "issued_at": NOW,
        "expires_at": NOW + timedelta(days=7),
        "deployments": (deployment,) if action else (),
    }
    return DesiredState(**(values | changes))


def running(runtime: Runtime, generation: int = 5) -> DesiredState:
    """The install of FILES with these wishes."""
    document = desired(generation)
    deployment = msgspec.structs.replace(document.deployments[0], runtime=runtime)
    return msgspec.structs.replace(document, deployments=(deployment,))


SERVED = documents.bundle_digest(FILES)
TWO = Runtime(threads=2)
EXPIRED = {"expires_at": NOW - timedelta(seconds=1)}


@pytest.mark.parametrize(
    ("document", "actual", "expected"),
    [
        (desired(5), Actual(handled={}), Decision.INSTALL),
        (desired(5), Actual(handled={"k": 4}), Decision.INSTALL),
        (desired(5), Actual(handled={"k": 5}), Decision.ALREADY_HANDLED),
        (desired(5, **EXPIRED), Actual(handled={"k": 5}), Decision.ALREADY_HANDLED),
        (desired(5), Actual(handled={"k": 6}), Decision.IGNORE_OLD_GENERATION),
        (desired(5), Actual(handled={"other": 6}), Decision.INSTALL),
        (desired(5, **EXPIRED), Actual(handled={}), Decision.REJECT_EXPIRED),
        (desired(5, None), Actual(handled={}), Decision.NOTHING_ASKED),
        (desired(5), Actual(handled={}, digest=SERVED), Decision.ALREADY_SERVING),
        (desired(5), Actual(handled={}, digest="other"), Decision.INSTALL),
        (running(TWO), Actual(handled={}, digest=SERVED), Decision.INSTALL),
        (running(TWO), Actual(handled={}, digest=SERVED, runtime=TWO), Decision.ALREADY_SERVING),
        (desired(5), Actual(handled={}, digest=SERVED, runtime=TWO), Decision.INSTALL),
        (running(Runtime(providers=("A",))), Actual(handled={}, digest=SERVED), Decision.INSTALL),
        (running(Runtime(max_concurrent=2)), Actual(handled={}, digest=SERVED), Decision.ALREADY_SERVING),
        (desired(5, Action.HOLD), Actual(handled={}, digest=SERVED), Decision.HOLD),
        (desired(5, Action.REMOVE), Actual(handled={}, digest=SERVED), Decision.REMOVE),
        (desired(5), Actual(handled={}, active_key="k", active_generation=5), Decision.IN_PROGRESS),
        (
            desired(4),
            Actual(handled={}, active_key="k", active_generation=5),
            Decision.IGNORE_OLD_GENERATION,
        ),
        (desired(6), Actual(handled={}, active_key="k", active_generation=5), Decision.INSTALL),
    ],
)
def test_plan(document: DesiredState, actual: Actual, expected: Decision) -> None:
    assert plan.decide(document, "k", actual, NOW) is expected


@given(st.lists(st.integers(0, 20), max_size=30))
def test_the_ratchet_never_goes_back_and_nothing_is_done_twice(generations: list[int]) -> None:
    handled: dict[str, int] = {}
    done: list[int] = []
    for generation in generations:
        decision = plan.decide(desired(generation), "k", Actual(handled=handled), NOW)
        if decision in plan.WORK:
            done.append(generation)
            handled = plan.advanced(handled, "k", generation)
    assert done == sorted(set(done))
    assert handled.get("k", -1) == max(generations, default=-1)


RUNTIMES = st.builds(
    Runtime,
    providers=st.lists(st.sampled_from(["A", "B"]), unique=True).map(tuple),
    threads=st.integers(0, 2),
    max_concurrent=st.integers(0, 2),
    load_timeout_s=st.sampled_from([1.0, 120.0]),
    max_memory_mb=st.sampled_from([1, 4096]),
)


@given(st.sampled_from(["", "other", SERVED]), RUNTIMES, RUNTIMES)
def test_what_is_adopted_is_loaded_as_it_was_asked_for(digest: str, served: Runtime, asked: Runtime) -> None:
    decision = plan.decide(running(asked), "k", Actual(handled={}, digest=digest, runtime=served), NOW)
    assert decision in (Decision.INSTALL, Decision.ALREADY_SERVING)
    as_asked = (served.providers, served.threads) == (asked.providers, asked.threads)
    assert (decision is Decision.ALREADY_SERVING) == (digest == SERVED and as_asked)


@given(RUNTIMES, st.lists(RUNTIMES, max_size=6))
def test_the_same_wishes_twice_load_nothing_twice(first: Runtime, others: list[Runtime]) -> None:
    served = first
    for generation, asked in enumerate([*others, *others[-1:]]):
        actual = Actual(handled={"k": generation - 1}, digest=SERVED, runtime=served)
        decision = plan.decide(running(asked, generation), "k", actual, NOW)
        assert generation < len(others) or decision is Decision.ALREADY_SERVING
        served = asked


def test_every_state_of_an_execution_has_its_events() -> None:
    for state in (State.DOWNLOADING, State.VERIFYING, State.LOADING, State.TRIAL):
        for event in (Event.DONE, Event.FAILED, Event.CANCELLED):
            assert machine.advance(state, event)
    for work in Work:
        assert machine.advance(State.ACCEPTED, machine.STARTS[work])
    with pytest.raises(errors.StateError):
        machine.advance(State.DEPLOYED, Event.DONE)


def test_every_step_is_legal_on_the_wire() -> None:
    for (state, _), step in machine.TABLE.items():
        assert states.may_follow(state, step.state)
        assert step.state in states.DEVICE_STATES


@given(st.lists(st.sampled_from([Event.DONE, Event.FAILED, Event.CANCELLED]), min_size=6))
def test_every_install_ends_and_a_swap_is_undone_unless_it_is_committed(events: list[Event]) -> None:
    step = machine.advance(State.ACCEPTED, Event.START)
    effects = list(step.effects)
    for event in events:
        if states.is_terminal(step.state):
            break
        step = machine.advance(step.state, event)
        effects += step.effects
    assert states.is_terminal(step.state)
    swapped, undone = Effect.ACTIVATE in effects, Effect.REVERT in effects
    assert swapped == (undone or Effect.COMMIT in effects)
    assert undone == (swapped and step.state is not State.DEPLOYED)


RESUMABLE = [state for state in State if state in states.DEVICE_STATES]


@given(
    st.sampled_from(RESUMABLE),
    st.sampled_from(list(Work)),
    st.integers(1, 5),
    st.integers(0, 200),
    st.booleans(),
)
def test_every_saved_state_can_be_taken_up(
    state: State, work: Work, tries: int, saves: int, activated: bool
) -> None:
    resumption = recovery.resume(state, work, tries=tries, saves=saves, activated=activated)
    step = resumption.step
    if states.is_terminal(state):
        assert step.state is state
    else:
        assert step.state is state or states.may_follow(state, step.state)
    if saves > recovery.MAX_SAVES:
        assert states.is_terminal(step.state)
    if activated and work is Work.INSTALL and states.is_terminal(step.state):
        assert (Effect.REVERT in step.effects) == (step.state in (State.ROLLED_BACK, State.CANCELLED))


def test_dying_on_trial_is_the_verdict_after_three_tries() -> None:
    def resumed(tries: int) -> State:
        return recovery.resume(State.TRIAL, Work.INSTALL, tries=tries, saves=5, activated=True).step.state

    assert [resumed(tries) for tries in (1, 2, 3)] == [State.TRIAL, State.TRIAL, State.ROLLED_BACK]


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_backoff_is_bounded_and_never_a_busy_loop(attempt: int, random: float) -> None:
    assert 0.1 <= backoff.delay(attempt, random, base=1.0, ceiling=60.0) <= 60.1
