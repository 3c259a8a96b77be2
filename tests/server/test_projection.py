"""Whatever arrives, in whatever order: ends stick, nothing moves backward, and history explains itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent.wire import documents, states
from edgeflow_agent.wire.documents import Action, Presence, PresenceKind
from edgeflow_agent.wire.states import State
from edgeflow_mlflow.domain import projection, summary
from edgeflow_mlflow.domain.projection import Decision

NOW = datetime(2026, 3, 3, tzinfo=UTC)
DEADLINES = projection.Deadlines(offline=timedelta(hours=168), progress=timedelta(hours=1))


def report(state: State) -> documents.Report:
    return documents.Report(boot="b", seq=1, execution="e", generation=1, state=state)


@given(st.lists(st.sampled_from(list(State)), max_size=60))
def test_reports_never_move_an_execution_backward_or_out_of_an_end(sent: list[State]) -> None:
    current = State.PENDING
    passed = [current]
    for word in sent:
        decision = projection.decide(current, report(word))
        if decision is Decision.APPLIED:
            assert states.may_follow(current, word)
            assert word not in states.SERVER_ENDS
            current = word
            passed.append(current)
        elif states.is_terminal(current):
            assert decision in (Decision.TOO_LATE, Decision.NOT_A_DEVICE_STATE)
    assert len(set(passed)) == len(passed)
    ends = [item for item in passed if states.is_terminal(item)]
    assert len(ends) <= 1 or ends == [State.DEPLOYED, State.ROLLED_BACK]


def test_each_refusal_has_a_name() -> None:
    assert projection.decide(None, report(State.TRIAL)) is Decision.NO_EXECUTION
    assert projection.decide(State.TRIAL, report(State.TRIAL)) is Decision.REPEATED
    assert projection.decide(State.TRIAL, report(State.ACCEPTED)) is Decision.BACKWARD
    assert projection.decide(State.DEPLOYED, report(State.FAILED)) is Decision.TOO_LATE
    assert projection.decide(State.PENDING, report(State.SUPERSEDED)) is Decision.NOT_A_DEVICE_STATE
    expired = msgspec.structs.replace(report(State.REJECTED), reason="expired")
    assert projection.decide(State.OFFERED, expired) is Decision.WAITING


@given(st.sampled_from(list(State)))
def test_every_state_that_is_no_end_has_a_deadline(state: State) -> None:
    assert (projection.deadline(state, NOW, DEADLINES) is None) == states.is_terminal(state)


def seen(**fields: object) -> Presence:
    words = {"kind": PresenceKind.HEARTBEAT, "boot": "b", "generation": 3, "execution": "e", "serving": True}
    return Presence(**{**words, "digest": "d", **fields})  # type: ignore[arg-type]


def test_a_heartbeat_proves_what_a_lost_report_would_have_said() -> None:
    def done(action: Action, presence: Presence) -> bool:
        return projection.converged(execution="e", generation=3, action=action, digest="d", presence=presence)

    assert done(Action.INSTALL, seen())
    assert not done(Action.INSTALL, seen(generation=2)), "it has not finished with this generation"
    assert not done(Action.INSTALL, seen(digest="other"))
    assert not done(Action.INSTALL, seen(execution="older"))
    assert not done(Action.INSTALL, seen(serving=False))
    assert done(Action.REMOVE, seen(serving=False, digest=""))
    assert not done(Action.REMOVE, seen())
    assert done(Action.HOLD, seen(execution="older"))


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_restored_server_continues_above_its_devices(current: int, floor: int) -> None:
    assert projection.next_generation(current, floor) > max(current, floor)


def test_a_device_cannot_push_the_counter_to_its_end() -> None:
    assert projection.is_plausible_floor(5, 10**6 + 5)
    assert not projection.is_plausible_floor(5, 10**6 + 6)


@given(st.lists(st.sampled_from(list(State)), max_size=20))
def test_a_rollout_is_summed_up_in_one_word(found: list[State]) -> None:
    word = summary.status(found)
    if not found:
        assert word is summary.Status.EMPTY
    elif any(not states.is_terminal(item) for item in found):
        assert word is summary.Status.RUNNING
    elif set(found) & {State.FAILED, State.REJECTED, State.ROLLED_BACK, State.TIMED_OUT}:
        assert word is summary.Status.FAILED
    elif State.DEPLOYED in found:
        assert word is summary.Status.DEPLOYED
    else:
        assert word is summary.Status.SUPERSEDED
