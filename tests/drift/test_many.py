"""Many windows at once say what each of them says alone, and who lies among them is named."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflow_agent import errors
from edgeflow_agent.drift import reading, record, sketch, sparse, stack, verdict
from edgeflow_agent.drift.baseline import Feature
from edgeflow_agent.drift.measures import Statistic
from edgeflow_agent.drift.sketch import Sketch
from edgeflow_agent.drift.verdict import Thresholds, Verdict
from edgeflow_agent.wire.sketches import Sparse
from edgeflow_mlflow.domain import packed
from tests.drift.conftest import categorical, numeric

RNG = np.random.default_rng(7)
FEATURES: dict[str, Feature] = {
    "many values": numeric(RNG.normal(10, 2, size=5_000)),
    "kept values": numeric(RNG.normal(size=600)),
    "few values": numeric(RNG.poisson(1, size=3_000)),
    "constant": numeric([2.5] * 300),
    "nothing": numeric([math.nan] * 300),
    "words": categorical(RNG.choice(["a", "b", "c"], 3_000, p=[0.6, 0.39, 0.01])),
}
EVERY = Thresholds(limits=dict.fromkeys(Statistic, 0.3), min_samples=20)
numbers = st.lists(
    st.sampled_from([None, math.inf, 1e9, 2.5]) | st.integers(-3, 12).map(float) | st.floats(-30, 30),
    max_size=60,
)
names = st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=60)


def folded(feature: Feature, values: Any) -> Sketch:
    made = sketch.empty(feature)
    made.fold(values)
    return made


def drawn(data: st.DataObject) -> tuple[Feature, list[Sketch]]:
    feature = data.draw(st.sampled_from(list(FEATURES.values())))
    values = names if feature is FEATURES["words"] else numbers
    return feature, [folded(feature, item) for item in data.draw(st.lists(values, min_size=1, max_size=6))]


def assert_same(one: Verdict, two: Verdict) -> None:
    assert (one.status, one.p_value is None) == (two.status, two.p_value is None)
    assert (one.p_value or 0) == pytest.approx(two.p_value or 0, rel=1e-12)
    assert [item.text for item in one.signals] == [item.text for item in two.signals]
    for mine, its in zip(one.signals, two.signals, strict=True):
        assert (mine.statistic, mine.status, mine.approx) == (its.statistic, its.status, its.approx)
        for name in ("value", "threshold", "p_value"):
            assert (getattr(mine, name) or 0) == pytest.approx(getattr(its, name) or 0, rel=1e-12, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_each_of_many_windows_is_judged_as_if_it_were_alone(data: st.DataObject) -> None:
    _, windows = drawn(data)
    for thresholds in (EVERY, Thresholds(min_samples=20)):
        many = verdict.assess(stack.of(windows), thresholds).verdicts()
        for window, found in zip(windows, many, strict=True):
            assert_same(found, verdict.judge(window, thresholds))


def packed_records(windows: list[Sketch]) -> list[Any]:
    """As a server has them."""
    texts = [msgspec.json.encode(record.to_record(window)) for window in windows]
    return [msgspec.json.decode(text, type=packed.PackedRecord) for text in texts]


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_records_are_put_together_by_row_as_sketches_are_merged(data: st.DataObject) -> None:
    feature, windows = drawn(data)
    rows = np.array([data.draw(st.integers(0, 2)) for _ in windows])
    present, rows = np.unique(rows, return_inverse=True)
    made, problems = reading.read(feature, packed_records(windows), rows, present.size, packed.flat)
    assert problems == {}
    assert made is not None
    for place in range(present.size):
        total = sketch.empty(feature)
        for window, row in zip(windows, rows.tolist(), strict=True):
            if row == place:
                sketch.merge(total, window)
        mine, its = record.to_record(made.sketch(place)), record.to_record(total)
        for name in its.__struct_fields__:
            expected = getattr(its, name)
            if isinstance(expected, float):
                expected = pytest.approx(expected, rel=1e-9, abs=1e-6)
            assert getattr(mine, name) == expected


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_pool_of_pools_is_the_pool_of_all(data: st.DataObject) -> None:
    feature, windows = drawn(data)
    total = sketch.empty(feature)
    for window in windows:
        sketch.merge(total, window)
    parts = stack.of(windows[:1])
    for window in windows[1:]:
        parts = stack.joined(parts, stack.of([window])).summed()
    mine, its = (verdict.judge(item, EVERY) for item in (parts.sketch(0), total))
    assert [item.status for item in mine.signals] == [item.status for item in its.signals]
    for one, two in zip(mine.signals, its.signals, strict=True):
        assert one.value == pytest.approx(two.value, rel=1e-9, abs=1e-9)


LIES: list[dict[str, Any]] = [
    {"name": "y"},
    {"n": 10**6},
    {"m2": -1.0},
    {"fine": {"gap": [1, 0], "count": [1, 1]}},
    {"fine": {"gap": [2000], "count": [500]}},
    {"fine": {"gap": [1], "count": [2**60]}},
    {"fine": {"gap": [1, 2], "count": [1]}},
    {"fine": {"gap": [1], "count": [2**70]}},
    {"fine": {"gap": ["one"], "count": [1]}},
    {"fine": {"gap": 5, "count": [1]}},
    {"quantiles": {"gap": [9], "count": [500]}},
    {"above": 1, "above_excess": 1.0},
]


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_who_lies_among_many_is_named_and_nobody_else(lie: dict[str, Any]) -> None:
    feature = FEATURES["many values"]
    good = packed_records([folded(feature, RNG.normal(10, 2, size=500)) for _ in range(8)])
    plain = msgspec.to_builtins(record.to_record(folded(feature, RNG.normal(10, 2, size=500)))) | lie
    bad = msgspec.json.decode(msgspec.json.encode(plain), type=packed.PackedRecord)
    made, problems = reading.read(
        feature, [*good[:3], bad, *good[3:]], np.zeros(9, dtype=np.int64), 1, packed.flat
    )
    assert made is None
    assert list(problems) == [3]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 2**53), max_size=4), max_size=4))
def test_lists_of_numbers_are_the_same_in_both_ways(lists: list[list[int]]) -> None:
    plain = [Sparse(gap=tuple(item), count=tuple(item[::-1])) for item in lists]
    # JSON may have spaces.
    texts = [str({"gap": item, "count": item[::-1]}).replace("'", '"') for item in lists]
    quick = [msgspec.json.decode(text, type=packed.PackedSparse) for text in texts]
    if plain:
        for one, two in zip(sparse.flat(plain)[0], packed.flat(quick)[0], strict=True):
            assert one.tolist() == two.tolist()


def test_more_values_than_can_be_counted_are_refused_together() -> None:
    feature = FEATURES["nothing"]
    window = folded(feature, [None])
    window.n = window.missing = 2**53
    records = packed_records([window, window])
    assert reading.read(feature, records, np.array([0, 1]), 2, packed.flat)[1] == {}
    made, problems = reading.read(feature, records, np.array([0, 0]), 1, packed.flat)
    assert made is None
    assert set(problems) == {0, 1}
    with pytest.raises(errors.ContractError, match="is of 'z'"):
        record.from_record(feature, msgspec.structs.replace(record.to_record(window), name="z"))
