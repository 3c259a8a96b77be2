"""Selectors read what operators type, and say what they cannot read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_mlflow import errors
from edgeflow_mlflow.domain import selectors

LABELS = {"site": "lyon", "arm": "right", "gpu": "", "agent": "0.10.2", "ring": "canary"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("site=lyon", True),
        ("site = lyon , arm != left", True),
        ("site!=lyon", False),
        ("gpu", True),
        ("!gpu", False),
        ("!tpu", True),
        ("tpu!=v5", True),
        ("site=lyon,arm=left", False),
        ("agent>=0.2", True),
        ("agent>=0.10.2,agent<=0.10.2.0", True),
        ("agent<0.9", False),
        ("agent>0.10.2", False),
        ("tpu>=1", False),
        ("site>=1", False),
        ("ring in (canary, beta)", True),
        ("ring in (beta)", False),
        ("ring notin (beta,stable),site=lyon", True),
        ("tpu in (v5)", False),
        ("tpu notin (v5)", True),
    ],
)
def test_matching(text: str, expected: bool) -> None:
    assert selectors.matches(selectors.parse(text), LABELS) is expected


@pytest.mark.parametrize(
    "text",
    ["", "=lyon", "site=ly,,on", "si te=lyon", "site=a\nb", "*", "agent>=new", "a in (b", "a in b", "a==b"],
)
def test_what_cannot_be_read_is_said(text: str) -> None:
    with pytest.raises(errors.InvalidError, match="cannot read"):
        selectors.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(errors.InvalidError):
        selectors.matches(selectors.parse(text), LABELS)


def test_a_target_says_what_runs_it_unless_a_label_does() -> None:
    said = {"agent_version": "0.2.0", "onnxruntime_version": "1.32.0", "platform": "Linux aarch64"}
    assert selectors.known({"agent": "mine"}, said) == {
        "agent": "mine",
        "onnxruntime": "1.32.0",
        "platform": "Linux aarch64",
    }
    assert selectors.known({"site": "lyon"}, {}) == {"site": "lyon"}


def test_labels_are_bounded() -> None:
    assert selectors.check_labels({"site": "lyon 3"}) == {"site": "lyon 3"}
    for bad in ({"": "x"}, {"a b": "x"}, {"a": "x\n"}, {f"k{n}": "" for n in range(33)}):
        with pytest.raises(errors.InvalidError):
            selectors.check_labels(bad)
