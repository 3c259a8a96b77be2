"""JSON to numpy and back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeflow_agent import errors
from edgeflow_agent.inference import tensors
from edgeflow_agent.inference.engine import DTYPES
from edgeflow_agent.wire.documents import Column, Interface, TensorSpec


def spec(dtype: str = "float", shape: tuple[Any, ...] = (None, 4), name: str = "x") -> TensorSpec:
    return TensorSpec(name=name, dtype=f"tensor({dtype})", shape=shape)


IRIS_COLUMNS = tuple(
    Column(name=name) for name in ("sepal_length", "sepal_width", "petal_length", "petal_width")
)
IRIS = Interface(inputs=(spec(),), columns=IRIS_COLUMNS)
ROW = [5.1, 3.5, 1.4, 0.2]
RECORD = dict(zip((item.name for item in IRIS_COLUMNS), ROW, strict=True))
PER_COLUMN = Interface(
    inputs=tuple(spec("float", (None, 1), item.name) for item in IRIS_COLUMNS), columns=IRIS_COLUMNS
)


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        (ROW, 1),
        ([ROW], 1),
        ([ROW, ROW], 2),
        (RECORD, 1),
        ([RECORD, RECORD, RECORD], 3),
        ({"inputs": ROW}, 1),
        ({"inputs": [ROW, ROW]}, 2),
        ({"inputs": {"x": [ROW]}}, 1),
        ({"inputs": RECORD}, 1),
        ({"inputs": [RECORD, RECORD]}, 2),
        ({"x": [ROW]}, 1),
    ],
)
def test_what_a_person_would_send(value: Any, rows: int) -> None:
    feed = tensors.decode(value, IRIS)
    assert feed["x"].dtype == np.float32
    np.testing.assert_array_equal(feed["x"], np.array([ROW] * rows, dtype=np.float32))


@pytest.mark.parametrize("value", [RECORD, [RECORD], ROW, [ROW], {"inputs": RECORD}])
def test_one_input_per_column(value: Any) -> None:
    feed = tensors.decode(value, PER_COLUMN)
    assert {name: array.tolist() for name, array in feed.items()} == {
        name: [[np.float32(number)]] for name, number in RECORD.items()
    }


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([1, 2, 3], ["'x'", "tensor(float)", "[?, 4]", "[1, 3]"]),
        ([[1, 2], [3]], ["'x'", "different lengths"]),
        (["a", "b", "c", "d"], ["'x'", "tensor(float)", "strings"]),
        ([True, False, True, True], ["'x'", "booleans"]),
        ([1, 2, 3, "4"], ["'x'", "strings"]),
        ([1, 2, None, "4"], ["'x'", "a string"]),
        ({"sepal_length": 1}, ["'sepal_width'", "missing"]),
        ({**RECORD, "colour": 1}, ["'colour'", "unknown"]),
        ([RECORD, {}], ["record 1", "missing"]),
        ([RECORD, 5], ["record 1", "a number"]),
        ({"inputs": {"z": [1]}}, ["'sepal_length'"]),
        ({"inputs": [ROW], "model": 1}, ["'model'"]),
        ("text", ["'x'", "strings"]),
        (None, ["'x'"]),
        ([[[ROW]]], ["[1, 1, 1, 4]"]),
        ([1e300, 0, 0, 0], ["'x'", "out of range"]),
        ([10**400, 0, 0, 0], ["'x'"]),
    ],
)
def test_a_refusal_names_the_input_and_what_is_wrong(value: Any, told: list[str]) -> None:
    with pytest.raises(errors.InputError) as caught:
        tensors.decode(value, IRIS)
    for text in told:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "value", "good"),
    [
        ("int8", [127, -128], True),
        ("int8", [128], False),
        ("uint8", [-1], False),
        ("uint64", [2**64 - 1], True),
        ("uint64", [2**63, 0], True),
        ("uint64", [2**63, -1], False),
        ("uint64", [2**63, 0.0], False),
        ("int64", [2**63], False),
        ("int64", [1.0], False),
        ("int64", [True], False),
        ("int64", [None], False),
        ("bool", [True, False], True),
        ("bool", [1], False),
        ("string", ["a", "b"], True),
        ("string", ["a", 1], False),
        ("string", ["a", ["b"]], False),
        ("float16", [1.5], True),
        ("float16", [1e6], False),
        ("double", [1e300], True),
        ("float", [1, 2.5, None], True),
    ],
)
def test_casts(dtype: str, value: list[Any], good: bool) -> None:
    declared = spec(dtype, (None,))
    if good:
        assert tensors.to_array(value, declared).dtype == DTYPES[declared.dtype]
    else:
        with pytest.raises(errors.InputError, match="'x'"):
            tensors.to_array(value, declared)


def test_null_is_a_missing_number_and_nan_is_answered_as_null() -> None:
    array = tensors.to_array([1.0, None], spec(shape=(None,)))
    assert np.isnan(array[1])
    answer = msgspec.json.encode(tensors.encode(np.array([1.0, np.nan, np.inf, -np.inf])))
    assert answer == b"[1.0,null,null,null]"


def test_maps_of_classifiers_get_string_keys() -> None:
    assert tensors.encode([{0: np.float32(0.5), 1: np.float32(0.5)}]) == [{"0": 0.5, "1": 0.5}]


def test_scalars_and_ranks() -> None:
    assert tensors.to_array(3, spec("int64", ())).shape == ()
    assert tensors.to_array(3, spec("float", (None, 1))).shape == (1, 1)
    assert tensors.to_array([], spec("int64", (None,))).dtype == np.int64
    with pytest.raises(errors.InputError):
        tensors.to_array([1, 2], spec("float", (3,)))


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([np.array([2, 0]), np.zeros((2, 3), np.float32)], ["c", "a"]),
        ([np.array([[0.1, 0.9, 0.0]], np.float32)], ["b"]),
        ([np.array(["setosa"], dtype=object)], ["setosa"]),
        ([np.array([7])], None),
        ([np.array([[0.5]], np.float32)], None),
    ],
)
def test_labels(outputs: list[Any], expected: list[str] | None) -> None:
    assert tensors.predicted_labels(outputs, ["a", "b", "c"]) == expected


def test_the_example_is_accepted() -> None:
    for interface in (
        IRIS,
        PER_COLUMN,
        Interface(inputs=(spec(),)),
        Interface(inputs=(spec("int64", (None, 2), "a"), spec("string", (None,), "b"))),
        Interface(inputs=(spec("float", (1, 3, 2, 2)),)),
        Interface(inputs=(spec("bool", ()),)),
    ):
        tensors.decode(tensors.parse(tensors.example(interface).encode()), interface)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"NaN", b"[" * 100_000, b'{"a": 1}x'])
def test_malformed_bodies(body: bytes) -> None:
    with pytest.raises(errors.InputError):
        tensors.parse(body)


NUMBERS = [name for name, dtype in DTYPES.items() if dtype not in (np.object_, np.bool_)]


@given(st.data(), st.sampled_from(NUMBERS))
def test_numbers_survive_the_way_there_and_back(data: st.DataObject, dtype: str) -> None:
    kind = DTYPES[dtype]
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    options = {"allow_nan": False, "allow_infinity": False} if np.dtype(kind).kind == "f" else {}
    array = data.draw(hnp.arrays(kind, shape, elements=hnp.from_dtype(np.dtype(kind), **options)))
    body = msgspec.json.encode(tensors.encode(array))
    back = tensors.to_array(tensors.parse(body), TensorSpec(name="x", dtype=dtype, shape=shape))
    assert back.dtype == kind
    np.testing.assert_array_equal(back, array)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["inputs", "x", "sepal_length", "z"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from([IRIS, PER_COLUMN, Interface(inputs=(spec("string", (None,)),))]))
def test_any_json_is_accepted_or_refused_but_never_crashes(value: Any, interface: Interface) -> None:
    try:
        body = json.dumps(value).encode()
        feed = tensors.decode(tensors.parse(body), interface)
    except errors.InputError:
        return
    assert feed.keys() == {item.name for item in interface.inputs}
