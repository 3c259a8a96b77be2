"""Records to rows, as scikit-learn would make them, and everything in them that is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from edgeflow_agent import errors, steps
from tests.steps.conftest import spec

FEED = {"step": "feed", "input": "x"}
COLOURS = ["red", "green", "blue"]


def rows(value: Any, *declared: dict[str, Any]) -> Any:
    return steps.load([*declared, FEED]).before(value)["x"]


def columns(*names: str, **more: Any) -> dict[str, Any]:
    return {"step": "columns", "names": list(names), **more}


def category(**more: Any) -> dict[str, Any]:
    return {"step": "category", "field": "colour", "values": COLOURS, **more}


def test_fields_come_in_the_models_order() -> None:
    made = rows({"b": 2, "a": 1.5}, columns("a", "b"))
    assert made.dtype == np.float32
    assert made.tolist() == [[1.5, 2.0]]
    many = [{"a": 1, "b": 2}, {"b": 4, "a": 3}]
    assert rows(many, columns("a", "b", dtype="int64")).tolist() == [[1, 2], [3, 4]]


def test_a_missing_field_takes_its_default() -> None:
    declared = columns("a", "b", "c", defaults={"b": 7, "c": None})
    made = rows([{"a": 1}, {"a": 1, "b": None, "c": 3}], declared)
    assert made[:, :2].tolist() == [[1, 7], [1, 7]]
    assert np.isnan(made[0, 2])
    assert made[1, 2] == 3


@pytest.mark.parametrize(
    ("value", "more", "words"),
    [
        ({"a": 1}, {}, "field 'b' is missing; expected a, b"),
        ({"a": 1, "b": None}, {}, "field 'b' is null"),
        ([{"a": 1, "b": 2}, {"a": 1}], {}, "missing in record 1"),
        ({"a": 1, "b": 2, "B": 3}, {}, "unknown field 'B'"),
        ({"a": 1, "b": "2"}, {}, "field 'b': expected a number, got text"),
        ({"a": 1, "b": True}, {}, "got a boolean"),
        ({"a": 1, "b": [2]}, {}, "got a list"),
        ({"a": 1, "b": {}}, {}, "got an object"),
        ({"a": 1, "b": 1e39}, {}, "out of range of float32"),
        ({"a": 1, "b": 10**400}, {}, "out of range of float32"),
        ({"a": 1, "b": 2.5}, {"dtype": "int8"}, "expected a whole number"),
        ({"a": 1, "b": 128}, {"dtype": "int8"}, "out of range of int8"),
        ({"a": 1, "b": 2}, {"dtype": "string"}, "expected text"),
        ({"a": 1, "b": 2}, {"dtype": "bool"}, "expected true or false"),
        ([], {}, "got a list"),
        ([{"a": 1, "b": 2}, 3], {}, "with a number among them"),
        ("a", {}, "got text"),
        (b"a", {}, "got bytes"),
    ],
)
def test_what_is_no_row_is_refused(value: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.InputError, match=words) as caught:
        rows(value, columns("a", "b", **more))
    assert str(caught.value).startswith("before[0] columns: ")


def test_whole_numbers_stay_exact() -> None:
    value = {"a": 2**63 - 1, "b": -(2**63)}
    assert rows(value, columns("a", "b", dtype="int64")).tolist() == [[2**63 - 1, -(2**63)]]
    assert rows({"a": 2**64 - 1}, columns("a", dtype="uint64")).tolist() == [[2**64 - 1]]


def test_extra_fields_may_be_ignored_and_several_inputs_fed() -> None:
    pipeline = steps.load(
        [
            columns("age", extra="ignore"), {"step": "feed", "input": "age"},
            columns("name", extra="ignore", dtype="string"), {"step": "feed", "input": "name"},
        ]
    )  # fmt: skip
    pipeline.check([spec("age", ("n", 1)), spec("name", ("n", 1), "string")], [])
    feed = pipeline.before([{"age": 3, "name": "x"}, {"age": 4, "name": "y"}])
    assert feed["age"].tolist() == [[3], [4]]
    assert feed["name"].tolist() == [["x"], ["y"]]


def test_categories_are_scikit_learns() -> None:
    given = [["green"], ["red"], ["blue"]]
    records = [{"colour": value, "a": 1} for [value] in given]
    ordinal = OrdinalEncoder(categories=[COLOURS]).fit(given).transform(given)
    assert rows(records, category(), columns("colour", "a"))[:, :1].tolist() == ordinal.tolist()
    one_hot = OneHotEncoder(categories=[COLOURS]).fit(given).transform(given).toarray()
    made = rows(records, category(encoding="one_hot"), columns("a", "colour"))
    assert made[:, 1:].tolist() == one_hot.tolist()
    for dtype in ("bool", "int8", "uint64", "float16"):
        only = [{"colour": value} for [value] in given]
        made = rows(only, category(encoding="one_hot"), columns("colour", dtype=dtype))
        assert made.dtype == dtype
        assert made.tolist() == one_hot.tolist()


@pytest.mark.parametrize("value", ["pink", None, 1, True, [], {"a": 1}])
def test_an_unknown_category_is_treated_as_declared(value: Any) -> None:
    record = {"colour": value}
    with pytest.raises(
        errors.InputError, match=r"before\[0\] category: field 'colour': .* none of the known"
    ):
        rows(record, category(), columns("colour"))
    assert rows(record, category(unknown="other"), columns("colour")).tolist() == [[3]]
    codes = category(unknown="other", codes=[10, 20, 30, -1])
    assert rows(record, codes, columns("colour")).tolist() == [[-1]]
    hot = category(encoding="one_hot", unknown="zeros")
    assert rows(record, hot, columns("colour")).tolist() == [[0, 0, 0]]
    other = category(encoding="one_hot", unknown="other")
    assert rows(record, other, columns("colour")).tolist() == [[0, 0, 0, 1]]
    assert rows({}, other, columns("colour")).tolist() == [[0, 0, 0, 1]]


def test_true_is_not_one_and_one_is_one_point_nought() -> None:
    step = {"step": "category", "field": "f", "values": [1, True, "1"]}
    for value, place in ((1.0, 0), (True, 1), ("1", 2)):
        assert rows({"f": value}, step, columns("f")).tolist() == [[place]]


def test_scaled_columns_are_scikit_learns() -> None:
    data = np.random.default_rng(0).normal(5, 3, (20, 2))
    scaler = StandardScaler().fit(data)
    scale = {"step": "scale_columns", "mean": scaler.mean_.tolist(), "std": scaler.scale_.tolist()}
    records = [{"a": a, "b": b} for a, b in data.tolist()]
    made = rows(records, columns("a", "b", dtype="float64"), scale)
    assert np.allclose(made, scaler.transform(data), atol=1e-12)
