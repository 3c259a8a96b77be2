"""Whatever is sent, a step gives a tensor or says what is wrong; and so it is with what a graph gives."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeflow_agent import errors, steps
from edgeflow_agent.steps import document
from tests.steps.conftest import pixels, png

FEED = {"step": "feed", "input": "x"}
IMAGE = {"step": "decode_image"}
TENSOR = {"step": "layout"}
COLUMNS = {"step": "columns", "names": ["a", "b"]}
COLOUR = {"step": "category", "field": "a", "values": ["x", 1, True]}

BEFORE: dict[str, list[dict[str, Any]]] = {
    "decode_image": [IMAGE, TENSOR, FEED],
    "decode_image grey": [{**IMAGE, "mode": "L", "exif": False}, TENSOR, FEED],
    "pad": [IMAGE, {"step": "pad"}, TENSOR, FEED],
    "resize letterbox": [
        IMAGE, {"step": "resize", "width": 9, "height": 4, "fit": "letterbox"}, TENSOR, FEED,
    ],
    "resize crop": [
        IMAGE, {"step": "resize", "width": 5, "height": 8, "fit": "crop", "method": "smooth"}, TENSOR, FEED,
    ],
    "normalise": [IMAGE, {"step": "normalise", "mean": [0.5, 0.4, 0.3], "std": [2]}, TENSOR, FEED],
    "layout": [IMAGE, {**TENSOR, "order": "hwc", "dtype": "float64"}, FEED],
    **{
        f"columns {dtype}": [{**COLUMNS, "dtype": dtype}, FEED]
        for dtype in ("float16", "int8", "uint64", "bool")
    },
    "columns string": [{**COLUMNS, "dtype": "string", "extra": "ignore", "defaults": {"b": "?"}}, FEED],
    "columns defaults": [{**COLUMNS, "defaults": {"a": None, "b": 1}, "extra": "ignore"}, FEED],
    "category": [COLOUR, COLUMNS, FEED],
    "category one_hot": [
        {**COLOUR, "encoding": "one_hot", "unknown": "zeros"}, {**COLUMNS, "dtype": "int8"}, FEED,
    ],
    "category other": [{**COLOUR, "unknown": "other"}, {**COLUMNS, "names": ["a"], "extra": "ignore"}, FEED],
    "scale_columns": [COLUMNS, {"step": "scale_columns", "mean": [1, 2], "std": [1e-300, 2]}, FEED],
    "bytes_window": [{"step": "bytes_window", "first": 3, "last": 4, "strip": True, "block": 8}, FEED],
    "frame": [{"step": "frame", "length": 5, "context": 2}, FEED],
    "frame refuse": [
        {"step": "frame", "length": 5, "dtype": "int16", "shorter": "refuse", "side": "start"}, FEED,
    ],
    "field": [{"step": "field", "field": "a"}, {**FEED, "dtype": "int32"}],
    "feed": [{**FEED, "dtype": "float32"}],
    "feed string": [{**FEED, "dtype": "string"}],
    "constant": [{"step": "constant", "input": "c", "value": 3}, {**FEED, "dtype": "float64"}],
    "state": [{"step": "state", "input": "h", "output": "g", "shape": [2]}, {**FEED, "dtype": "uint8"}],
}  # fmt: skip

CLASSES = {"output": "y", "labels": ["a", "b", "c"]}
BOXES = {"step": "detections", "output": "y"}
AFTER: dict[str, dict[str, Any]] = {
    "labels": {"step": "labels", "output": "y"},
    "labels softmax": {
        "step": "labels", **CLASSES, "activation": "softmax", "threshold": 0.5, "below": {"a": "z"},
    },
    "top_k": {"step": "top_k", "output": "y", "activation": "sigmoid"},
    "top_k labels": {"step": "top_k", **CLASSES, "threshold": 0.1},
    "threshold": {"step": "threshold", "output": "y", "activation": "sigmoid"},
    "detections": BOXES,
    "detections labels": {
        **BOXES, "labels": ["a"], "clip": "corner", "gives": "corner_size", "across": "all",
    },
    "detections rows": {
        **BOXES, "layout": "rows", "objectness": True, "activation": "sigmoid", "size": [9, 9],
    },
    "detections index": {**BOXES, "layout": "rows", "classes": "index", "box": "corners", "labels": ["a"]},
    "select": {"step": "select", "names": ["y"]},
    "rename": {"step": "rename", "names": {"y": "z"}},
    "round": {"step": "round", "digits": 0},
}  # fmt: skip

NAMES = st.sampled_from(["a", "b", "c", "state", "h", "context", "b64", "inputs"])
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-300, 300), st.floats(), st.text(max_size=4),
    st.sampled_from(["x", 1, True, 10**400, -(10**400), 2**63, 1e39]),
)  # fmt: skip
JSON = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)
RECORD = st.fixed_dictionaries({"a": PLAIN, "b": PLAIN}, optional={"state": JSON})
PICTURE = png(pixels(6, 5))


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """Images of every size, whole or with some bytes turned over."""
    content = bytearray(png(pixels(draw(st.integers(1, 12)), draw(st.integers(1, 12)))))
    for place in draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] = draw(st.integers(0, 255))
    return bytes(content)


BYTES = st.one_of(
    st.binary(max_size=40), pictures(), st.integers(0, len(PICTURE)).map(lambda end: PICTURE[:end])
)
VALUES = st.one_of(
    JSON, RECORD, st.lists(RECORD, max_size=3), st.lists(st.floats(-1, 1), max_size=7), BYTES,
    BYTES.map(lambda content: base64.b64encode(content).decode()),
)  # fmt: skip
DEEP: Any = 1
for _ in range(2000):
    DEEP = [DEEP]


def test_every_step_is_among_the_configurations() -> None:
    assert {word.split()[0] for word in BEFORE} == set(document.BEFORE)
    assert {word.split()[0] for word in AFTER} == set(document.AFTER)


@pytest.mark.parametrize("name", BEFORE)
def test_before_gives_tensors_or_says_what_is_wrong(name: str) -> None:
    pipeline = steps.load(BEFORE[name])

    @settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
    @given(VALUES)
    def check(value: Any) -> None:
        try:
            feed = pipeline.before(value)
        except errors.InputError as error:
            assert str(error)
        else:
            assert feed.keys() == pipeline._feeds.keys()
            for key, (_, form) in pipeline._feeds.items():
                array = feed[key]
                assert isinstance(array, np.ndarray)
                assert array.dtype == (object if form.dtype == "string" else form.dtype)
                assert form.shape is None or len(form.shape) == array.ndim
                for own, promised in zip(array.shape, form.shape or (), strict=False):
                    assert promised in (None, own)

    check()
    with pytest.raises(errors.InputError):
        pipeline.before(DEEP)


@pytest.mark.parametrize("name", AFTER)
def test_after_gives_an_answer_or_says_that_the_model_is_another(name: str) -> None:
    pipeline = steps.load([AFTER[name]])
    seen = steps.load([IMAGE, TENSOR, FEED, AFTER[name]])
    feed = seen.before(png(pixels(7, 9)))
    shapes = st.one_of(
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=8),
        st.sampled_from([(2, 3), (1, 3), (1, 5, 20), (1, 20, 6), (1, 9, 30), (5, 9)]),
    )
    kinds = st.sampled_from([np.float32, np.float16, np.float64, np.int64, np.uint8, np.bool_])

    @settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
    @given(kinds.flatmap(lambda kind: arrays.arrays(kind, shapes)))
    def check(output: Any) -> None:
        for made, request in ((pipeline, None), (seen, feed)):
            try:
                answer = made.after({"y": output}, request)
            except errors.ModelError as error:
                assert error.reason == "steps"
            else:
                assert msgspec.json.decode(msgspec.json.encode(answer)).keys() == answer.keys()

    check()


@given(JSON)
@settings(max_examples=200)
def test_any_json_is_a_document_or_says_what_is_wrong(value: Any) -> None:
    for source in (value, {"before": [value]}, {"after": [value]}, [value]):
        if isinstance(source, (str, bytes)):
            continue  # a path
        try:
            steps.load(source)
        except errors.ModelError as error:
            assert error.reason == "steps"


@pytest.mark.parametrize("word", [*document.BEFORE, *document.AFTER])
@given(st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_any_parameters_are_taken_or_refused(word: str, data: st.DataObject) -> None:
    fields = (document.BEFORE | document.AFTER)[word].__struct_fields__  # type: ignore[operator]
    given_ = data.draw(st.dictionaries(st.sampled_from(fields), JSON, max_size=len(fields)))
    part = "before" if word in document.BEFORE else "after"
    try:
        made = steps.load({part: [{"step": word, **given_}]})
    except errors.ModelError:
        return
    assert steps.load(made.encode()) == made


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_state_survives_json_bit_for_bit(values: list[float]) -> None:
    pipeline = steps.load(
        [
            {"step": "field", "field": "a"}, {**FEED, "dtype": "float32"},
            {"step": "state", "input": "h", "output": "g", "shape": [3]},
        ]
    )  # fmt: skip
    state = np.array(values, dtype=np.float32)
    answer = pipeline.after({"g": state}, pipeline.before({"a": 1}))
    sent = msgspec.json.decode(msgspec.json.encode({"a": 1, "state": answer["state"]}))
    assert np.array_equal(pipeline.before(sent)["h"], state)
