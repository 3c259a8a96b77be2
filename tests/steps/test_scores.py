"""Labels, confidence and everything else that is made of outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax

from edgeflow_agent import errors, steps
from tests.steps.conftest import spec

WORDS = ["cat", "dog", "cow"]
SCORES = np.array([[1.0, 3.0, 2.0], [-1.0, -5.0, -800.0]], dtype=np.float32)


def answer(outputs: dict[str, Any], *declared: dict[str, Any]) -> Any:
    return steps.load(list(declared)).after(outputs)


def test_labels_with_their_confidence() -> None:
    step = {"step": "labels", "output": "y", "labels": WORDS}
    assert answer({"y": SCORES}, step) == {
        "y": [
            {"label": "dog", "index": 1, "confidence": 3.0},
            {"label": "cat", "index": 0, "confidence": -1.0},
        ]
    }
    soft = answer({"y": SCORES}, {**step, "activation": "softmax"})["y"]
    assert [item["confidence"] for item in soft] == pytest.approx(
        softmax(SCORES.astype(float), axis=1).max(axis=1)
    )
    sigmoid = answer({"y": SCORES}, {**step, "activation": "sigmoid"})["y"]
    assert [item["confidence"] for item in sigmoid] == pytest.approx(expit(SCORES.astype(float)).max(axis=1))
    assert answer({"y": SCORES[0]}, {"step": "labels", "output": "y"})["y"][0]["label"] == "1"
    assert answer({"y": SCORES[:, :, None, None]}, {**step, "name": "z"})["z"][0]["label"] == "dog"


def test_unsure_labels_become_what_was_declared() -> None:
    step = {"step": "labels", "output": "y", "labels": WORDS, "threshold": 0.5, "thresholds": {"dog": 0.9}}
    shares = np.array([[0.4, 0.3, 0.3], [0.1, 0.8, 0.1], [0.0, 0.1, 0.9]], dtype=np.float32)
    labels = [item["label"] for item in answer({"y": shares}, step)["y"]]
    assert labels == [None, None, "cow"]
    labels = [item["label"] for item in answer({"y": shares}, {**step, "below": "?"})["y"]]
    assert labels == ["?", "?", "cow"]
    more = {**step, "below": {"cat": "pet", "dog": "pet"}, "rename": {"cow": "cattle", "pet": "animal"}}
    assert [item["label"] for item in answer({"y": shares}, more)["y"]] == ["animal", "animal", "cattle"]


def test_the_best_few_in_order() -> None:
    step = {"step": "top_k", "output": "y", "labels": WORDS, "k": 2}
    first, second = answer({"y": SCORES}, step)["y"]
    assert [item["label"] for item in first] == ["dog", "cow"]
    assert [item["index"] for item in second] == [0, 1]
    assert [len(row) for row in answer({"y": SCORES}, {**step, "k": 9, "threshold": 2})["y"]] == [2, 0]


def test_a_single_score_is_one_of_two_words() -> None:
    step = {"step": "threshold", "output": "y", "labels": ["low", "high"]}
    wanted = [{"label": "high", "score": 0.5}, {"label": "low", "score": 0.25}]
    for shape in ((2,), (2, 1), (2, 1, 1)):
        assert answer({"y": np.array([0.5, 0.25]).reshape(shape)}, step)["y"] == wanted
    [found] = answer({"y": np.array([-2.0])}, {**step, "activation": "sigmoid"})["y"]
    assert found == {"label": "low", "score": pytest.approx(expit(-2.0))}


def test_one_record_has_one_result() -> None:
    pipeline = steps.load(
        [
            {"step": "columns", "names": ["a"]},
            {"step": "feed", "input": "x"},
            {"step": "labels", "output": "y", "labels": WORDS},
        ]
    )
    for value, kind in (({"a": 1}, dict), ([{"a": 1}], list)):
        feed = pipeline.before(value)
        assert type(pipeline.after({"y": SCORES[:1]}, feed)["y"]) is kind
    with pytest.raises(TypeError, match="the feed that before"):
        pipeline.after({"y": SCORES})


def test_a_tensor_from_the_caller_has_its_batch_and_so_has_the_answer() -> None:
    tensor = {"step": "feed", "input": "x", "dtype": "float32"}
    declared = [{"step": "field", "field": "a"}, tensor, {"step": "labels", "output": "y", "labels": WORDS}]
    pipeline = steps.load(declared)
    assert type(pipeline.after({"y": SCORES[:1]}, pipeline.before({"a": [[1]]}))["y"]) is list
    # Beside a frame, a plain value is no batch of frames.
    sound = [{"step": "field", "field": "s"}, {"step": "frame", "length": 2}, {"step": "feed", "input": "s"}]
    pipeline = steps.load([*sound, *declared])
    assert type(pipeline.after({"y": SCORES[:1]}, pipeline.before({"s": [1], "a": 1}))["y"]) is dict


def test_the_answer_is_selected_renamed_and_rounded() -> None:
    outputs = {"a": np.array([1.23456, np.nan]), "b": np.array(["x"], dtype=object), "c": np.array([3])}
    made = answer(
        outputs,
        {"step": "select", "names": ["b", "a", "c"]},
        {"step": "rename", "names": {"a": "b", "b": "a"}},
        {"step": "round", "digits": 2},
    )
    assert list(made) == ["a", "b", "c"]
    assert made["a"] == ["x"]
    assert made["b"][0] == 1.23
    assert np.isnan(made["b"][1])
    assert made["c"] == [3]
    maps = [{0: 0.123, 1: 0.877}]
    assert answer({"p": maps}, {"step": "round", "digits": 1}) == {"p": [{"0": 0.1, "1": 0.9}]}


@pytest.mark.parametrize(
    ("step", "output"),
    [
        ({"step": "labels", "output": "z"}, SCORES),
        ({"step": "labels", "output": "y", "labels": ["a", "b"]}, SCORES),
        ({"step": "labels", "output": "y"}, np.zeros((2, 0))),
        ({"step": "labels", "output": "y"}, np.zeros((2, 3, 4))),
        ({"step": "labels", "output": "y"}, np.array(1.0)),
        ({"step": "labels", "output": "y"}, np.array(["a"], dtype=object)),
        ({"step": "labels", "output": "y"}, [{"a": 1}]),
        ({"step": "threshold", "output": "y"}, SCORES),
        ({"step": "select", "names": ["z"]}, SCORES),
        ({"step": "rename", "names": {"z": "a"}}, SCORES),
    ],
)
def test_outputs_that_were_not_declared_are_the_models_mistake(step: dict[str, Any], output: Any) -> None:
    with pytest.raises(errors.ModelError, match=r"^after\[0\] ") as caught:
        answer({"y": output}, step)
    assert caught.value.reason == "steps"


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (
            {"step": "labels", "output": "z"},
            r"after\[0\] labels: there is no output 'z'; there are 'y', 'text'",
        ),
        ({"step": "labels", "output": "y", "labels": ["a"]}, "1 labels for an output of shape"),
        ({"step": "labels", "output": "text"}, "no tensor of numbers"),
        ({"step": "top_k", "output": "y", "labels": ["a"]}, "1 labels"),
        ({"step": "threshold", "output": "y"}, "one score for each row"),
        ({"step": "select", "names": ["z"]}, "there is no 'z'"),
        ({"step": "rename", "names": {"y": "text"}}, "there is a 'text' already"),
    ],
)
def test_steps_after_the_graph_are_held_against_it(declared: dict[str, Any], words: str) -> None:
    outputs = [spec("y", ("n", 3)), spec("text", ("n",), "string")]
    with pytest.raises(errors.ModelError, match=words):
        steps.load([declared]).check([], outputs)


def test_a_result_is_no_output_any_more() -> None:
    twice = [{"step": "labels", "output": "y"}, {"step": "top_k", "output": "y"}]
    with pytest.raises(errors.ModelError, match=r"after\[1\] top_k: 'y' holds no tensor"):
        steps.load(twice).check([], [spec("y", ("n", 3))])
    beside = [{"step": "labels", "output": "y", "name": "best"}, {"step": "top_k", "output": "y"}]
    steps.load(beside).check([], [spec("y", ("n", 3))])
