"""The planner and the gates: values in, decisions out."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_mlflow import errors
from edgeflow_mlflow.domain import gates, rollouts
from edgeflow_mlflow.domain.gates import Facts, Limits, Verdict
from edgeflow_mlflow.domain.rollouts import (
    Assign,
    Event,
    Halt,
    OnFailure,
    PassWave,
    Plan,
    Retry,
    RollBack,
    Snapshot,
    Soak,
    StartWave,
    State,
    Wave,
    WaveState,
)

NOW = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
LIMITS = Limits(max_failure_rate=0.2, minimum_executed=5)


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (Facts(targets=10), Verdict.WAIT),
        (Facts(targets=0), Verdict.OK),
        (Facts(targets=10, executed=4, failed=4), Verdict.WAIT),
        (Facts(targets=10, executed=4, failed=4, is_over=True), Verdict.FAIL),
        (Facts(targets=10, executed=5, failed=1), Verdict.OK),
        (Facts(targets=10, executed=5, failed=2), Verdict.FAIL),
        (Facts(targets=2, executed=2, failed=1), Verdict.FAIL),
        (Facts(targets=100, executed=100, failed=20), Verdict.OK),
        (Facts(targets=3, accepted=3, is_over=True), Verdict.OK),
        (Facts(targets=3, accepted=2), Verdict.WAIT),
    ],
)
def test_failures_count_over_what_came_to_an_end(facts: Facts, verdict: Verdict) -> None:
    reading = gates.failure_rate(LIMITS, facts)
    assert reading.verdict is verdict
    assert reading.text


def test_a_gate_that_fails_says_its_limit_as_it_was_given() -> None:
    limits = Limits(max_failure_rate=0.025, max_error_rate=0.005, max_latency_ratio=1.5, max_drift_rate=0.07)
    facts = Facts(
        targets=9,
        executed=9,
        failed=1,
        trial_requests=100,
        trial_errors=1,
        latency_ratio=2.0,
        watched=9,
        judged=9,
        drifted=9,
    )
    assert [reading.text for reading in gates.read(limits, facts)] == [
        "1 of 9 failed, more than 2.5%",
        "1 of 100 requests failed on trial, more than 0.5%",
        "a run takes 2.00 times as long as with the version before, more than 1.5",
        "9 of 9 judged devices have drifted, more than 7%",
    ]


@pytest.mark.parametrize(
    ("limits", "facts", "verdicts"),
    [
        (Limits(), Facts(targets=1, executed=1), ["pass"]),
        (
            Limits(max_error_rate=0.1, max_latency_ratio=2),
            Facts(targets=1, executed=1, trial_requests=10, trial_errors=1, latency_ratio=2.0),
            ["pass", "pass", "pass"],
        ),
        (
            Limits(max_error_rate=0.1, max_latency_ratio=2),
            Facts(targets=1, executed=1, trial_requests=10, trial_errors=2, latency_ratio=2.1),
            ["pass", "fail", "fail"],
        ),
        (
            Limits(max_error_rate=0.1, max_latency_ratio=2),
            Facts(targets=1, executed=1),
            ["pass", "wait", "pass"],
        ),
    ],
)
def test_gates_that_are_not_set_up_say_nothing(limits: Limits, facts: Facts, verdicts: list[str]) -> None:
    assert [reading.verdict for reading in gates.read(limits, facts)] == verdicts


GATED = Limits(max_drift_rate=0.1, minimum_executed=2)


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (Facts(), Verdict.OK),
        (Facts(watched=10), Verdict.WAIT),
        (Facts(watched=10, is_judged=True), Verdict.OK),
        (Facts(watched=10, judged=4), Verdict.WAIT),
        (Facts(watched=10, judged=4, drifted=4), Verdict.WAIT),
        (Facts(watched=10, judged=4, drifted=1, is_judged=True), Verdict.FAIL),
        (Facts(watched=10, judged=5), Verdict.OK),
        (Facts(watched=10, judged=10, drifted=1), Verdict.OK),
        (Facts(watched=10, judged=10, drifted=2), Verdict.FAIL),
        (Facts(watched=3, judged=1), Verdict.WAIT),
        (Facts(watched=1, judged=1, drifted=1), Verdict.FAIL),
    ],
)
def test_drift_waits_for_half_of_the_wave_but_not_for_ever(facts: Facts, verdict: Verdict) -> None:
    reading = gates.drift(GATED, facts)
    assert reading is not None
    assert reading.verdict is verdict
    assert reading.text


def running(**changes: object) -> Wave:
    return Wave(number=2, state=WaveState.RUNNING, is_last=False, started_at=NOW, **changes)  # type: ignore[arg-type]


WELL = Facts(targets=10, executed=10)
BADLY = Facts(targets=10, executed=10, failed=5)
CASES = {
    "begins": (Wave(number=1, state=WaveState.SCHEDULED, is_last=True), Plan(), StartWave()),
    "too early": (
        Wave(number=1, state=WaveState.SCHEDULED, is_last=True),
        Plan(start_at=NOW + timedelta(seconds=1)),
        None,
    ),
    "all at once": (running(waiting=700), Plan(), Assign(count=500)),
    "at a rate": (running(waiting=7), Plan(rate_per_minute=60), Assign(count=1)),
    "not its turn": (running(waiting=7, begun=1), Plan(rate_per_minute=60), None),
    "once more": (running(waiting=7, retries=2), Plan(), Retry(count=2)),
    "on their way": (running(open=1), Plan(), None),
    "nobody left": (running(facts=WELL), Plan(soak=timedelta(hours=1)), Soak(until=NOW + timedelta(hours=1))),
    "goes wrong early": (running(waiting=100, facts=BADLY), Plan(), Halt()),
    "goes back": (running(facts=BADLY), Plan(on_failure=OnFailure.ROLLBACK), RollBack()),
    "soaks": (
        dataclasses.replace(
            running(facts=WELL), state=WaveState.SOAKING, soak_until=NOW + timedelta(seconds=1)
        ),
        Plan(),
        None,
    ),
    "goes wrong late": (dataclasses.replace(running(facts=BADLY), state=WaveState.SOAKING), Plan(), Halt()),
    "no evidence": (
        dataclasses.replace(running(facts=Facts(targets=3)), state=WaveState.SOAKING),
        Plan(),
        None,
    ),
    "passes": (dataclasses.replace(running(facts=WELL), state=WaveState.SOAKING), Plan(), PassWave()),
    "waits for approval": (
        dataclasses.replace(running(facts=WELL), state=WaveState.SOAKING),
        Plan(approval=True),
        None,
    ),
    "is approved": (
        dataclasses.replace(running(facts=WELL), state=WaveState.SOAKING, approved=True),
        Plan(approval=True),
        PassWave(),
    ),
    "the end needs no approval": (
        dataclasses.replace(running(facts=WELL), state=WaveState.SOAKING, is_last=True),
        Plan(approval=True),
        PassWave(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_step(name: str) -> None:
    wave, plan, expected = CASES[name]
    decision = rollouts.decide(Snapshot(state=State.RUNNING, plan=plan, wave=wave, clock_from=NOW), NOW)
    assert decision.action == expected
    assert decision.why


def test_nothing_is_done_for_a_rollout_that_does_not_run() -> None:
    for state in set(State) - {State.RUNNING}:
        wave = running(waiting=5, facts=BADLY)
        assert rollouts.decide(Snapshot(state=state, plan=Plan(), wave=wave), NOW).action is None


def test_where_there_is_nothing_to_go_back_to_somebody_must_look() -> None:
    snapshot = Snapshot(
        state=State.RUNNING,
        plan=Plan(on_failure=OnFailure.ROLLBACK),
        wave=running(facts=BADLY),
        can_return=False,
    )
    decision = rollouts.decide(snapshot, NOW)
    assert decision.action == Halt()
    assert "no version before" in decision.why


def test_ends_stick() -> None:
    for state in State:
        for event in Event:
            if (state, event) in rollouts.TABLE:
                assert state in rollouts.OPEN
            else:
                with pytest.raises(errors.ConflictError):
                    rollouts.after(state, event)


@given(
    st.builds(
        Wave,
        number=st.integers(1, 9),
        state=st.sampled_from(WaveState),
        is_last=st.booleans(),
        waiting=st.integers(0, 1000),
        open=st.integers(0, 10),
        retries=st.integers(0, 10),
        begun=st.integers(0, 10),
        started_at=st.just(NOW),
        approved=st.booleans(),
        facts=st.builds(
            Facts,
            targets=st.integers(0, 20),
            executed=st.integers(0, 20),
            failed=st.integers(0, 20),
            is_over=st.booleans(),
        ),
    ),
    st.builds(
        Plan,
        rate_per_minute=st.sampled_from([0.0, 1.0, 100.0]),
        approval=st.booleans(),
        on_failure=st.sampled_from(OnFailure),
    ),
)
def test_a_wave_never_passes_with_somebody_on_the_way_or_a_gate_against_it(wave: Wave, plan: Plan) -> None:
    decision = rollouts.decide(Snapshot(state=State.RUNNING, plan=plan, wave=wave), NOW)
    match decision.action:
        case PassWave():
            assert wave.state is WaveState.SOAKING
            worst = gates.worst(decision.readings)
            assert worst is Verdict.OK or (worst is Verdict.WAIT and wave.approved)
        case Soak():
            assert not (wave.waiting or wave.open or wave.retries)
        case Assign(count=count):
            assert 0 < count <= wave.waiting
        case Retry(count=count):
            assert 0 < count <= wave.retries
        case Halt() | RollBack():
            assert gates.worst(decision.readings) is Verdict.FAIL
