"""Topics: what is built parses again, and nothing else parses."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent import errors
from edgeflow_agent.wire import topics

targets = st.from_regex(topics.TARGET_ID, fullmatch=True)
kinds = st.sampled_from(topics.Kind)


@given(targets, kinds)
def test_a_topic_parses_into_what_it_was_built_from(target: str, kind: topics.Kind) -> None:
    text = topics.topic(target, kind)
    assert topics.parse(text) == (target, kind)
    assert not set("+#\0$ ") & set(text)


@given(
    st.one_of(
        st.text(max_size=80),
        st.builds("edgeflow/targets/{}/{}".format, st.text(max_size=20), st.text(max_size=20)),
    )
)
def test_no_other_topic_parses(text: str) -> None:
    with contextlib.suppress(errors.ContractError):
        target, kind = topics.parse(text)
        assert text == topics.topic(target, kind)


@given(targets, kinds, st.data())
def test_a_changed_topic_is_another_or_none(target: str, kind: topics.Kind, data: st.DataObject) -> None:
    text = topics.topic(target, kind)
    index = data.draw(st.integers(0, len(text)))
    changed = text[:index] + data.draw(st.sampled_from("/+#$. \n\0AÄa1-_")) + text[index:]
    with contextlib.suppress(errors.ContractError):
        assert topics.topic(*topics.parse(changed)) == changed


@pytest.mark.parametrize(
    "wrong",
    ["", "-a", ".a", "_a", "A", "a" * 64, "a/b", "a+", "#", "a b", "a\n", "ä", "a\0", "..", "a/../b"],
)
def test_what_cannot_name_a_target(wrong: str) -> None:
    assert not topics.is_target_id(wrong)
    with pytest.raises(errors.ContractError, match="for example robot-07"):
        topics.check_target_id(wrong)
    with pytest.raises(errors.ContractError):
        topics.topic(wrong, topics.Kind.DEPLOY)
    with pytest.raises(errors.ContractError):
        topics.parse(f"edgeflow/targets/{wrong}/deploy")


def test_each_kind_has_one_direction() -> None:
    assert set(topics.Kind) == topics.TO_DEVICE | topics.FROM_DEVICE
    assert not topics.TO_DEVICE & topics.FROM_DEVICE


def test_the_words_on_the_wire_never_change() -> None:
    assert {kind.value for kind in topics.Kind} >= {
        "deploy",
        "deploy/ack",
        "deploy/status",
        "telemetry",
        "presence",
        "stored",
        "rpc/request",
        "rpc/response",
    }
    assert topics.topic("robot-07", topics.Kind.ACK) == "edgeflow/targets/robot-07/deploy/ack"
