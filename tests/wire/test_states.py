"""The table of execution states is sane: it moves forward only, and an end is an end, but for one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent.wire import states
from edgeflow_agent.wire.states import State

EVERY = list(State)


def test_the_table_lists_every_state() -> None:
    assert set(states.NEXT) == set(State)
    assert set(states.PROGRESS) | states.TERMINAL == set(State)
    assert not set(states.PROGRESS) & states.TERMINAL


@pytest.mark.parametrize("state", sorted(states.TERMINAL))
def test_nothing_follows_an_end_but_giving_up_what_was_deployed(state: State) -> None:
    assert states.is_terminal(state)
    follow = {new for new in EVERY if states.may_follow(state, new)}
    assert follow == ({State.ROLLED_BACK} if state is State.DEPLOYED else set())


@pytest.mark.parametrize(("one", "other"), list(itertools.product(EVERY, EVERY)))
def test_no_pair_goes_both_ways_and_none_repeats(one: State, other: State) -> None:
    assert not (states.may_follow(one, other) and states.may_follow(other, one))


@pytest.mark.parametrize("state", states.PROGRESS)
def test_every_state_reaches_every_end_and_every_later_state(state: State) -> None:
    assert states.NEXT[state] >= states.TERMINAL
    later = states.PROGRESS[states.PROGRESS.index(state) + 1 :]
    assert states.NEXT[state] == set(later) | states.TERMINAL


@given(st.lists(st.sampled_from(State), max_size=40))
def test_reports_in_any_order_move_forward_and_end(reports: list[State]) -> None:
    current, steps = State.PENDING, 0
    for new in reports:
        if states.may_follow(current, new):
            assert not states.is_terminal(current) or current is State.DEPLOYED
            current, steps = new, steps + 1
    assert steps <= len(states.PROGRESS) + 1
    ends = [new for new in reports if states.is_terminal(new)]
    assert states.is_terminal(current) == bool(ends)
    if ends:
        given_up = ends[0] is State.DEPLOYED and State.ROLLED_BACK in ends
        assert current is (State.ROLLED_BACK if given_up else ends[0])


def test_what_a_device_may_report() -> None:
    assert states.SERVER_ENDS <= states.TERMINAL
    assert (
        set(State)
        - {
            State.PENDING,
            State.OFFERED,
            State.TIMED_OUT,
            State.SUPERSEDED,
        }
        == states.DEVICE_STATES
    )


def test_the_words_on_the_wire_never_change() -> None:
    words = (
        "pending offered accepted downloading verifying loading trial "
        "deployed rejected failed rolled_back timed_out cancelled superseded"
    )
    assert {state.value for state in State} >= {*words.split()}
