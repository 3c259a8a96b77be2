"""Detections against a brute-force suppression, and boxes that go back to the original image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent import errors, steps
from edgeflow_agent.steps.suppression import suppress
from tests.steps.conftest import pixels, png, spec


def overlap(first: Any, second: Any) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    whole = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - shared
    return shared / whole if whole else 0.0


def brute_force(boxes: Any, confidence: Any, index: Any, iou: float) -> list[int]:
    """By the definition: whoever is not covered by a better one that stays, stays."""
    order = sorted(range(len(boxes)), key=lambda place: (-confidence[place], place))
    kept: list[int] = []
    for place in order:
        rivals = [other for other in kept if index is None or index[other] == index[place]]
        if all(overlap(boxes[place], boxes[other]) <= iou for other in rivals):
            kept.append(place)
    return kept


@given(st.integers(0, 10_000), st.integers(0, 60), st.floats(0, 1), st.booleans())
def test_suppression_is_what_its_definition_says(seed: int, count: int, iou: float, by_class: bool) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 40, (count, 2))
    boxes = np.concatenate([first, first + rng.integers(0, 30, (count, 2))], axis=1).astype(np.float64)
    confidence = rng.integers(0, 20, count) / 20  # with ties
    index = rng.integers(0, 3, count) if by_class else None
    assert suppress(boxes, confidence, index, iou, 1000).tolist() == brute_force(
        boxes, confidence, index, iou
    )


def test_suppression_is_opencvs() -> None:
    rng = np.random.default_rng(5)
    first = rng.uniform(0, 100, (300, 2))
    size = rng.uniform(5, 60, (300, 2))
    confidence = (rng.permutation(300) + 1) / 300
    wanted = cv2.dnn.NMSBoxes(np.hstack([first, size]).tolist(), confidence.tolist(), 0.0, 0.45)
    boxes = np.hstack([first, first + size])
    assert suppress(boxes, confidence, None, 0.45, 1000).tolist() == np.asarray(wanted).ravel().tolist()


def detect(output: Any, image: Any = None, before: list[dict[str, Any]] | None = None, **more: Any) -> Any:
    chain = []
    if image is not None:
        chain = [
            {"step": "decode_image"},
            *(before or ()),
            {"step": "layout"},
            {"step": "feed", "input": "x"},
        ]
    step = {"step": "detections", "output": "y", "labels": ["a", "b"], **more}
    pipeline = steps.load([*chain, step])
    feed = pipeline.before(png(image)) if image is not None else None
    return pipeline.after({"y": np.asarray(output, dtype=np.float32)}, feed)["y"]


def columns(*candidates: tuple[float, ...]) -> Any:
    """[1, values, candidates], with one that is nothing."""
    return np.array([[*candidates, [0.0] * len(candidates[0])]], dtype=np.float32).transpose(0, 2, 1)


def test_each_layout_of_an_output_is_read() -> None:
    wanted = [{"label": "b", "index": 1, "confidence": 0.75, "box": [10.0, 20.0, 30.0, 60.0]}]
    centre = (20, 40, 20, 40)
    assert detect(columns((*centre, 0.125, 0.75))) == wanted
    assert detect(columns((*centre, 0.125, 0.75))[0]) == wanted
    assert detect([[[*centre, 0.125, 0.75]]], layout="rows") == wanted
    assert detect([[10, 20, 30, 60, 0.125, 0.75]], layout="rows", box="corners") == wanted
    assert detect([[10, 20, 20, 40, 0.125, 0.75]], layout="rows", box="corner_size") == wanted
    assert detect([[*centre, 0.75, 0.5, 1.0]], layout="rows", objectness=True) == wanted
    assert detect([[0.2, 0.4, 0.2, 0.4, 0, 0.75]], layout="rows", size=[100, 100]) == [
        {**wanted[0], "box": pytest.approx([10, 20, 30, 60])}
    ]
    ended = {"layout": "rows", "box": "corners", "classes": "index"}
    assert detect([[10, 20, 30, 60, 0.75, 1.0], [0, 0, 1, 1, 0.9, 7.0]], **ended) == wanted
    [found] = detect(columns((*centre, -1.0, 2.0)), activation="sigmoid", threshold=0.6, gives="corner_size")
    assert found["confidence"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert found["box"] == [10.0, 20.0, 20.0, 40.0]


def test_classes_suppress_their_own_or_all() -> None:
    output = columns((20, 20, 20, 20, 0.9, 0), (21, 20, 20, 20, 0, 0.8), (22, 20, 20, 20, 0.7, 0))
    assert [item["label"] for item in detect(output)] == ["a", "b"]
    assert [item["label"] for item in detect(output, across="all")] == ["a"]
    assert [item["confidence"] for item in detect(output, iou=1)] == pytest.approx([0.9, 0.8, 0.7])
    assert len(detect(output, iou=1, limit=2)) == 2
    assert detect(output, threshold=0.95) == []


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("place", ["centre", "end"])
@pytest.mark.parametrize("pad", [False, True])
def test_a_box_comes_back_to_where_it_was(fit: str, place: str, pad: bool) -> None:
    """A white spot on a black image, found again in the model's pixels, must come back to its place."""
    image = np.zeros((300, 500, 3), np.uint8)
    left, top, right, bottom = 220, 130, 290, 190
    image[top:bottom, left:right] = 255
    resize = {"step": "resize", "width": 250, "height": 200, "fit": fit, "place": place, "fill": 0}
    before = [*([{"step": "pad", "place": place}] if pad else []), resize]
    pipeline = steps.load(
        [
            {"step": "decode_image"},
            *before,
            {"step": "layout"},
            {"step": "feed", "input": "x"},
            {"step": "detections", "output": "y", "labels": ["a", "b"]},
        ]
    )
    feed = pipeline.before(png(image))
    rows, places = np.nonzero(feed["x"][0, 0] > 127)
    x, y, end_x, end_y = places.min(), rows.min(), places.max() + 1, rows.max() + 1
    output = columns(((x + end_x) / 2, (y + end_y) / 2, end_x - x, end_y - y, 0.9, 0))
    [found] = pipeline.after({"y": output}, feed)["y"]
    assert found["box"] == pytest.approx([left, top, right, bottom], abs=2.5)


def test_boxes_are_cut_off_at_the_edges_as_declared() -> None:
    image = pixels(100, 200)
    output = columns((10, 50, 40, 200, 0.9, 0))
    assert detect(output, image)[0]["box"] == [0, 0, 30, 100]
    assert detect(output, image, clip="corner")[0]["box"] == [0, 0, 40, 100]
    assert detect(output, image, clip="none")[0]["box"] == [-10, -50, 30, 150]


def test_outputs_that_were_not_declared_are_the_models_mistake() -> None:
    for output in (np.zeros((2, 6, 5)), np.zeros((1, 7, 5)), np.zeros(6), np.zeros((1, 1, 6, 5))):
        with pytest.raises(errors.ModelError, match=r"after\[0\] detections") as caught:
            detect(output)
        assert caught.value.reason == "steps"


def test_detections_are_held_against_the_graph() -> None:
    pipeline = steps.load([{"step": "detections", "output": "y", "labels": ["a", "b"]}])
    pipeline.check([], [spec("y", ("n", 6, "candidates"))])
    pipeline.check([], [spec("y", (1, 6, 8400))])
    for shape in ((1, 84, 8400), (1, 8400, 6), (2, 6, 10), (6,)):
        with pytest.raises(errors.ModelError, match=r"after\[0\] detections"):
            pipeline.check([], [spec("y", shape)])
