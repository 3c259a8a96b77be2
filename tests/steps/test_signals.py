"""Bytes, samples, constants and state."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent import errors, steps
from tests.steps.conftest import spec

FEED = {"step": "feed", "input": "x"}


def made(value: Any, **step: Any) -> Any:
    return steps.load([step, FEED]).before(value)["x"]


@given(st.binary(min_size=1, max_size=40), st.integers(0, 12), st.integers(1, 12), st.integers(12, 40))
def test_a_window_holds_the_first_and_last_bytes(content: bytes, first: int, last: int, block: int) -> None:
    window = made(content, step="bytes_window", first=first, last=last, block=block)
    assert window.dtype == np.int32
    head, tail = list(content[:first]), list(content[max(len(content) - last, 0) :])
    wanted = head + [256] * (first - len(head)) + [256] * (last - len(tail)) + tail
    assert window.tolist() == [wanted]


def test_white_space_is_left_out_within_the_block() -> None:
    window = {"step": "bytes_window", "first": 3, "last": 3, "block": 4, "strip": True, "padding": 0}
    assert made(b"  a b", **window).tolist() == [[97, 32, 0, 97, 32, 98]]
    assert made(base64.b64encode(b"abcd").decode(), **window).tolist() == [[97, 98, 99, 98, 99, 100]]
    for content, words in ((b"", "0 bytes besides"), (b"    x", "0 bytes besides")):
        with pytest.raises(errors.InputError, match=words):
            made(content, **window)
    with pytest.raises(errors.InputError, match=r"before\[0\] bytes_window: 1 bytes; it takes 2"):
        made(b"x", step="bytes_window", first=3, minimum=2)


def test_a_frame_is_cut_and_filled_at_its_side() -> None:
    frame = {"step": "frame", "length": 4}
    assert made([1, 2], **frame).tolist() == [[1, 2, 0, 0]]
    assert made([[1, 2]], **frame, side="start").tolist() == [[0, 0, 1, 2]]
    assert made([1, 2, 3, 4, 5], **frame).tolist() == [[1, 2, 3, 4]]
    assert made([1, 2, 3, 4, 5], **frame, side="start").tolist() == [[2, 3, 4, 5]]
    assert made([], **frame, side="start").tolist() == [[0, 0, 0, 0]]
    assert made(np.arange(4), **frame, dtype="int16").dtype == np.int16
    for value, more in (([1] * 5, {"longer": "refuse"}), ([1] * 3, {"shorter": "refuse"})):
        with pytest.raises(errors.InputError, match="expected 4 samples, got"):
            made(value, **frame, **more)
    for value, words in (([[1], [2]], "2 axes"), ("x", "got text"), (3, "0 axes"), ([1, None, "x"], "text")):
        with pytest.raises(errors.InputError, match=words):
            made(value, **frame)


STATEFUL = [
    {"step": "field", "field": "audio"},
    {"step": "frame", "length": 4, "context": 2},
    FEED,
    {"step": "constant", "input": "rate", "value": 8000, "dtype": "int64"},
    {"step": "state", "input": "h", "output": "next_h", "shape": [1, 2]},
]


def test_state_begins_with_zeros_and_comes_back_with_the_next_request() -> None:
    pipeline = steps.load(STATEFUL)
    graph = [spec("x", (None, 6)), spec("rate", (), "int64"), spec("h", (1, "n"))]
    pipeline.check(graph, [spec("next_h", (1, 2)), spec("y", ("n", 1))])
    feed = pipeline.before({"audio": [1, 2, 3, 4]})
    assert feed["x"].tolist() == [[0, 0, 1, 2, 3, 4]]
    assert feed["rate"].dtype == np.int64
    assert feed["rate"].shape == ()
    assert feed["h"].tolist() == [[0, 0]]
    exact = np.array([[0.1, 1e-30]], dtype=np.float32)
    answer = pipeline.after({"y": np.ones((1, 1), np.float32), "next_h": exact}, feed)
    assert answer["y"] == [[1.0]]
    assert answer["state"]["context"] == [3.0, 4.0]
    again = pipeline.before({"audio": [5], "state": answer["state"]})
    assert again["x"].tolist() == [[3, 4, 5, 0, 0, 0]]
    assert np.array_equal(again["h"], exact)
    assert pipeline.before({"audio": [], "state": None})["h"].tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([], "'state' must be the object"),
        ({"k": 1}, "unknown state 'k'; the model keeps context, h"),
        ({"h": [[1, 2, 3]]}, r"the state 'h' must have the shape \[1, 2\]"),
        ({"h": "x"}, "expected numbers"),
        ({"context": [1]}, "the state 'context' has 2 samples"),
    ],
)
def test_a_state_that_is_not_the_models_is_refused(state: Any, words: str) -> None:
    with pytest.raises(errors.InputError, match=words):
        steps.load(STATEFUL).before({"audio": [1], "state": state})


def test_members_and_plain_values_are_fed_as_declared() -> None:
    pipeline = steps.load([{"step": "field", "field": "a"}, {**FEED, "dtype": "int32"}])
    assert pipeline.before({"a": [[1, 2]], "b": 0})["x"].tolist() == [[1, 2]]
    for value, words in (
        ({}, "'a' is missing"),
        ([1], "got a list"),
        ({"a": [[1], [1, 2]]}, "different lengths"),
    ):
        with pytest.raises(errors.InputError, match=words):
            pipeline.before(value)
