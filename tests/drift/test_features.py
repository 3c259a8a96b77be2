"""What stands for inputs and outputs: the same when learned and when watched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflow_agent.drift import baseline_file, features, record
from edgeflow_agent.drift.learning import Learner
from edgeflow_agent.drift.sketch import NumericSketch, empty
from edgeflow_agent.drift.watch import Watch


def arrays(rows: int) -> st.SearchStrategy[Any]:
    shapes = st.sampled_from([(), (1,), (3,), (70,), (2, 5), (3, 8, 9), (8, 9, 3), (0,)])
    dtypes = st.sampled_from(["f4", "f8", "i8", "u1", "?", "U", "O"])
    return st.builds(_array, st.just(rows), shapes, dtypes, st.integers(0, 2**32 - 1))


def _array(rows: int, shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(rows, *shape)) * 10
    if dtype in "UO":
        texts = np.array([f"t{value:.0f}" for value in numbers.ravel()], dtype=object).reshape(numbers.shape)
        return texts if dtype == "O" else texts.astype(str)
    with np.errstate(invalid="ignore"):
        return numbers.astype(dtype)


@given(st.data(), st.integers(1, 30))
@settings(deadline=None, max_examples=150)
def test_what_was_learned_is_what_is_watched(data: st.DataObject, rows: int) -> None:
    feed = {name: data.draw(arrays(rows)) for name in ("x", "z")}
    outputs = {name: data.draw(arrays(rows)) for name in ("y", "w")}
    learner = Learner(rows, columns=(), labels=("cat", "dog"))
    learner.fold(feed, outputs)
    baseline = baseline_file.parse(learner.baseline())
    watch = Watch(baseline, ("cat", "dog"))
    watch.fold(feed, outputs)
    windows = {item.name: item for item in watch.close(60)}
    for feature in baseline.features:
        counted = record.from_record(feature, windows[feature.name])
        assert counted.n == feature.n == rows
        again = empty(feature)
        again.merge(counted)
        if isinstance(again, NumericSketch) and feature.distribution is not None:  # type: ignore[union-attr]
            seen = feature.distribution  # type: ignore[union-attr]
            assert again.fine.dense().tolist() == seen.fine.tolist()
            assert again.min == pytest.approx(seen.min)
            assert again.below.count == again.above.count == 0


def test_names_and_columns() -> None:
    rng = np.random.default_rng(1)
    learner = Learner(10, columns=("age", "weight"), labels=())
    learner.fold({"x": rng.normal(size=(12, 2))}, {"p": rng.uniform(size=(12, 3))})
    assert learner.is_complete
    baseline = baseline_file.parse(learner.baseline())
    assert [feature.name for feature in baseline.features] == [
        "age",
        "weight",
        "p.class",
        "p.top",
        "p.margin",
    ]


@pytest.mark.parametrize(
    ("array", "names"),
    [
        (np.zeros((2, 3)), ["x.0", "x.1", "x.2"]),
        (np.zeros(2), ["x.0"]),
        (np.zeros((2, 768)), ["x.norm", "x.mean", "x.length"]),
        (np.zeros((2, 7, 5)), ["x.norm", "x.mean", "x.length"]),
        (np.array([["some text"], ["more"]]), ["x.0"]),
        (np.zeros((2, 1, 4, 4)), ["x.mean.0", "x.std.0", "x.sharpness"]),
    ],
)
def test_features_by_form(array: Any, names: list[str]) -> None:
    assert [item.name for item in features.of_input("x", array)] == names


def test_lengths_and_norms() -> None:
    found = features.input_statistics(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert list(found["norm"]) == [5.0, 0.0]
    assert list(found["mean"]) == [3.5, 0.0]
    words = features.input_statistics(np.array([["ab", "c"], ["", "dé"]], dtype=object))
    assert list(words["length"]) == [3, 2]


def test_a_local_alarm_needs_two_of_three() -> None:
    rng = np.random.default_rng(2)
    learner = Learner(5000, columns=(), labels=())
    learner.fold({"x": rng.normal(size=(5000, 2))}, {})
    watch = Watch(baseline_file.parse(learner.baseline()), ())

    def judged(shift: float) -> bool:
        rows = rng.normal(size=(600, 2))
        rows[:, 0] += shift
        watch.fold({"x": rows}, {})
        watch.close(60)
        assert not watch.standings["x.1"].alarm
        return watch.standings["x.0"].alarm

    assert [judged(shift) for shift in (0, 1, 0, 1, 1, 0, 0, 0)] == [
        False, False, False, True, True, True, False, False,
    ]  # fmt: skip


def test_few_values_wait_for_more() -> None:
    rng = np.random.default_rng(3)
    learner = Learner(1000, columns=(), labels=())
    learner.fold({"x": rng.normal(size=(1000, 1))}, {})
    watch = Watch(baseline_file.parse(learner.baseline()), ())
    for _ in range(4):
        watch.fold({"x": rng.normal(size=(120, 1))}, {})
        assert watch.close(60)[0].n == 120
        assert not watch.standings
    watch.fold({"x": rng.normal(size=(120, 1))}, {})
    watch.close(60)
    assert watch.standings["x.0"].n == 600


@pytest.mark.parametrize("shape", [(0, 4), (0, 100), (0, 3, 8, 8), (0, 5, 5), (0, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, bool, object])
def test_a_batch_of_none_has_features_of_no_rows(shape: tuple[int, ...], dtype: Any) -> None:
    array = np.zeros(shape, dtype)
    for found in (features.input_statistics(array), features.output_statistics(array, ())):
        assert all(len(values) == 0 for values in found.values())


@pytest.mark.parametrize("shape", [(9, 3, 8, 8), (9, 200), (9, 5, 7)])
def test_a_large_batch_is_described_in_parts(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(3).normal(size=shape)
    whole = features.input_statistics(array)
    monkeypatch.setattr(features, "_MOST_AT_ONCE", 300)
    parts = features.input_statistics(array)
    assert parts.keys() == whole.keys()
    for word, values in whole.items():
        assert np.asarray(parts[word]).tolist() == np.asarray(values).tolist()


def test_a_learner_holds_what_it_needs_and_no_request() -> None:
    learner = Learner(300, columns=[f"c{number}" for number in range(150)], labels=())
    for _ in range(150):
        learner.fold({"x": np.zeros((1, 150))}, {"boxes": np.zeros(300)})
    assert not learner.is_complete, "300 boxes of one image are one row"
    assert len(learner._inputs) <= 128
    assert max(map(len, learner._inputs.values())) <= 128
    for _ in range(150):
        learner.fold({"x": np.zeros((1, 150))}, {"boxes": np.zeros(300)})
    assert learner.is_complete
    assert {feature.n for feature in baseline_file.parse(learner.baseline()).features} == {300, 90_000}
