"""The file: what is read, what is refused with which words, and the golden files that never change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeflow_agent import errors, steps
from edgeflow_agent.steps import document
from tests.steps.conftest import spec

GOLDEN = Path(__file__).parent / "golden"
FEED = {"step": "feed", "input": "x"}
COLUMNS = {"step": "columns", "names": ["a"]}


def test_the_golden_file_holds_every_step_and_never_changes() -> None:
    content = (GOLDEN / "steps.1.json").read_bytes()
    said = json.loads(content)
    assert {item["step"] for item in said["before"]} == set(document.BEFORE)
    assert {item["step"] for item in said["after"]} == set(document.AFTER)
    # Whatever is added later has a default: the old file is read, and what it says is written again.
    again = json.loads(steps.load(content).encode())
    for part in ("before", "after"):
        for old, new in zip(said[part], again[part], strict=True):
            assert old.items() <= new.items()


def test_a_pipeline_comes_from_anything_that_holds_the_document(tmp_path: Path) -> None:
    declared = [COLUMNS, FEED, {"step": "round", "digits": 1}]
    pipeline = steps.load(declared)
    (tmp_path / "steps.json").write_bytes(pipeline.encode())
    as_dict = {"format": 1, "before": declared[:2], "after": declared[2:]}
    for source in (pipeline, pipeline.encode(), as_dict, tmp_path, tmp_path / "steps.json", str(tmp_path)):
        made = steps.load(source)
        assert made == pipeline
        assert made.encode() == pipeline.encode()
    assert hash(steps.load(declared)) == hash(pipeline)
    assert repr(pipeline) == "<Pipeline columns > feed > (graph) > round>"


def test_numbers_of_numpy_are_numbers_and_what_json_cannot_hold_is_refused() -> None:
    scale = {"step": "scale_columns", "mean": np.array([1.5]), "std": np.float32(2.0).reshape(1)}
    made = steps.load([COLUMNS, scale, FEED])
    assert made == steps.load([COLUMNS, {**scale, "mean": [1.5], "std": [2]}, FEED])
    for odd, words in (
        (float("inf"), "null"),
        ({1, 2}, "Expected `float`"),
        (object(), "no part of a step"),
    ):
        with pytest.raises(errors.ModelError, match=words):
            steps.load([{"step": "decode_image"}, {"step": "normalise", "scale": odd}])
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(errors.ModelError, match="cannot be written as JSON"):
        steps.load(deep)


def test_what_a_pipeline_says_of_itself() -> None:
    images = [{"step": "decode_image"}, {"step": "layout"}, FEED]
    for declared, takes_input, takes_image, gives_answer in (
        ([], False, False, False),
        ([COLUMNS, FEED], True, False, False),
        (images, True, True, False),
        ([{"step": "round"}], False, False, True),
        ([COLUMNS, FEED, {"step": "state", "input": "h", "output": "g", "shape": [1]}], True, False, True),
    ):
        made = steps.load(declared)
        assert (made.takes_input, made.takes_image, made.gives_answer) == (
            takes_input,
            takes_image,
            gives_answer,
        )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"5", "must be an object"),
        (b" " * (2**20 + 1), "over 1048576 bytes"),
        ({"format": 2}, "has format 2, and this release reads 1"),
        ({"befor": []}, "unknown field `befor`"),
        ({"before": {}}, "Expected `array`"),
        ({"before": ["layout"]}, r'before\[0\]: a step is an object with its name'),
        ({"before": [{"stop": "layout"}]}, r"before\[0\]: a step is an object"),
        ({"before": [{"step": "resise"}]}, r"before\[0\]: no step 'resise' is known here; there are"),
        ({"before": [{"step": "round"}]}, "belongs to after"),
        ({"after": [FEED]}, "belongs to before"),
        ({"before": [COLUMNS, {"step": "feed"}]}, r"before\[1\] feed: .*missing required field `input`"),
        ({"before": [{**COLUMNS, "nmaes": []}]}, r"before\[0\] columns: .*unknown field `nmaes`"),
        ({"before": [{**COLUMNS, "names": "a"}]}, r"before\[0\] columns: .*`\$\.names`"),
        ({"before": [{**COLUMNS, "dtype": "float"}]}, "Invalid enum value 'float'"),
        ([COLUMNS] * 65, "more than 64 steps"),
        ([{"step": "round"}, COLUMNS, FEED], "the steps before the graph come first"),
        ([COLUMNS], r"before\[0\] columns: what it gives goes nowhere"),
        ([COLUMNS, {"step": "layout"}], r"before\[1\] layout: takes an image, and is given a table"),
        ([FEED], "needs a dtype for values as the caller sent them"),
        ([COLUMNS, {**FEED, "dtype": "int8"}], "takes a dtype only for"),
        ([COLUMNS, FEED, COLUMNS, FEED], r"before\[3\] feed: the input 'x' is given a value twice"),
        ([{"step": "category", "field": "f", "values": []}], "at least one value"),
        ([{"step": "category", "field": "f", "values": ["a", "a"]}], "none twice"),
        ([{"step": "category", "field": "f", "values": ["a"], "unknown": "zeros"}], "for one_hot"),
        ([{"step": "category", "field": "f", "values": ["a"], "codes": [1, 2]}], "here 1"),
        ([{**COLUMNS, "defaults": {"b": 1}}], "a default for 'b'"),
        ([{**COLUMNS, "defaults": {"a": "x"}}], "the default of 'a'"),
        ([{**COLUMNS, "defaults": {"a": None}, "dtype": "int8"}], "null as the default of 'a' needs floats"),
        ([COLUMNS, {"step": "scale_columns", "mean": [0, 0], "std": [1, 1]}], "2 means for 1 columns"),
        ([COLUMNS, {"step": "scale_columns", "mean": [0], "std": [0]}], "std not zero"),
        ([{**COLUMNS, "dtype": "int8"}, {"step": "scale_columns", "mean": [0], "std": [1]}], "of floats"),
        ([{"step": "decode_image"}, {"step": "resize", "width": 0, "height": 1}], "between 1 and 16384"),
        ([{"step": "decode_image"}, {"step": "pad", "fill": 256}], "between 0 and 255"),
        ([{"step": "decode_image"}, {"step": "normalise", "std": [0]}], "std none that is zero"),
        ([{"step": "decode_image", "mode": "L"}, {"step": "normalise", "mean": [0, 0, 0]}], "3 numbers for"),
        ([{"step": "decode_image"}, {"step": "normalise"}, {"step": "pad"}], "it comes before normalise"),
        ("\0", "cannot be read"),
        (
            [{"step": "decode_image"}, {"step": "normalise"}, {"step": "layout", "dtype": "uint8"}],
            "makes fractions",
        ),
        ([{"step": "bytes_window"}], "together from 1"),
        ([{"step": "bytes_window", "first": 9, "block": 8}], "block must be"),
        ([{"step": "bytes_window", "first": 9, "dtype": "uint8"}], "padding does not fit"),
        ([{"step": "frame", "length": 4, "context": 5}], "context no longer"),
        ([{"step": "constant", "input": "x", "value": "a"}], "expected numbers"),
        ([{"step": "state", "input": "x", "output": "y", "shape": [0]}], "whole sizes"),
        ([{"step": "state", "input": "x", "output": "y", "shape": [10**4, 10**4]}], "at most 10000000"),
        ([{"step": "labels", "output": "y", "labels": ["a", "a"]}], "two labels are the same"),
        ([{"step": "labels", "output": "y", "thresholds": {"a": 1}}], "'a' is none of the labels"),
        ([{"step": "top_k", "output": "y", "k": 0}], "k must be"),
        ([{"step": "detections", "output": "y", "iou": 2}], "iou must be"),
        ([{"step": "rename", "names": {"a": "c", "b": "c"}}], "the same name"),
        ([{"step": "round", "digits": 16}], "from 0 to 15"),
    ],
)  # fmt: skip
def test_a_document_that_is_wrong_says_where(source: Any, words: str) -> None:
    with pytest.raises(errors.ModelError, match=words) as caught:
        steps.load(source)
    assert caught.value.reason == "steps"
    assert str(caught.value).startswith("steps.json: ")


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ([COLUMNS, FEED], r"nothing is given to the input 'y': add a step feed, constant or state"),
        ([COLUMNS, {**FEED, "input": "z"}], r"before\[1\] feed: the graph has no input 'z'; it has x, y"),
        ([{**COLUMNS, "dtype": "int64"}, FEED], "gives int64, and the graph takes float32"),
        ([{**COLUMNS, "names": ["a", "b"]}, FEED], "gives 2 along axis 1, and the graph takes 1"),
        ([{"step": "decode_image"}, {"step": "normalise"}, {"step": "layout"}, FEED], "gives 4 axes, and"),
        (
            [COLUMNS, FEED, {"step": "state", "input": "y", "output": "z", "shape": [3]}],
            "no output 'z'; it has out",
        ),
        (
            [COLUMNS, FEED, {"step": "state", "input": "y", "output": "out", "shape": [3]}],
            "the output 'out' gives 2 axes, and the state takes 1",
        ),
    ],
)
def test_steps_before_the_graph_are_held_against_it(declared: list[dict[str, Any]], words: str) -> None:
    inputs = [spec("x", ("n", 1)), spec("y", (3,))]
    with pytest.raises(errors.ModelError, match=words):
        steps.load(declared).check(inputs, [spec("out", ("n", 3))])


def test_a_file_that_is_not_there_or_not_readable(tmp_path: Path) -> None:
    assert steps.beside(tmp_path / "model.onnx") is None
    (tmp_path / "extra_files").mkdir()
    (tmp_path / "extra_files" / "steps.json").write_bytes(steps.load([COLUMNS, FEED]).encode())
    assert steps.beside(tmp_path / "model.onnx") == steps.load([COLUMNS, FEED])
    (tmp_path / "steps.json").write_text("{")
    for source in (tmp_path, tmp_path / "nothing.json"):
        with pytest.raises(errors.ModelError, match=r"steps\.json: "):
            steps.load(source)
    with pytest.raises(errors.ModelError, match="not JSON"):
        steps.beside(tmp_path / "model.onnx")


def test_steps_need_neither_onnxruntime_nor_pillow() -> None:
    program = (
        "import sys; sys.modules['onnxruntime'] = sys.modules['PIL'] = None\n"
        "from edgeflow_agent import steps\n"
        "print(steps.load([{'step': 'columns', 'names': ['a']}, {'step': 'feed', 'input': 'x'}])"
        ".before({'a': 1})['x'].tolist())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ
    )
    assert ended.stdout == "[[1.0]]\n"


def test_an_agent_without_steps_does_not_import_them() -> None:
    program = (
        "import sys; from edgeflow_agent.inference import slot, trial_load\n"
        "print(sorted(name for name in sys.modules if name.startswith('edgeflow_agent.steps')))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "['edgeflow_agent.steps', 'edgeflow_agent.steps.place']\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = steps.nothing


def test_a_pipeline_is_shared_by_threads_without_a_trace_of_others() -> None:
    pipeline = steps.load([COLUMNS, FEED])
    first, second = pipeline.before({"a": 1}), pipeline.before({"a": 2})
    assert (first["x"].tolist(), second["x"].tolist()) == ([[1.0]], [[2.0]])
    assert isinstance(first["x"], np.ndarray)
