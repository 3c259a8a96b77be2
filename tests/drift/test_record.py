"""A record says all that a sketch holds, and a device that lies is refused."""

from __future__ import annotations

import copy
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent import errors
from edgeflow_agent.drift import record, statistics, verdict
from edgeflow_agent.drift.baseline import Feature
from tests.drift.conftest import numeric, window, words
from tests.drift.test_sketch import (
    CONSTANT,
    FEATURES,
    FRUIT,
    KEPT,
    NORMAL,
    NOTHING,
    assert_same,
    fruit,
    parts,
)

SEEN = NORMAL.distribution
assert SEEN is not None
VALUES = [*np.random.default_rng(3).normal(size=200).tolist(), 50.0, 60.0, -70.0, None, 1e200]


def on_the_wire(sketch: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(record.to_record(sketch)), type=record.SketchRecord)


@given(st.sampled_from(FEATURES), parts)
def test_a_sketch_comes_back_from_the_wire(feature: Any, values: list[list[float]]) -> None:
    made = window(feature, *values)
    sent = on_the_wire(made)
    again = record.from_record(feature, sent)
    assert_same(again, made)  # type: ignore[arg-type]
    assert again.nbytes == made.nbytes
    assert record.to_record(again) == sent


@given(parts, parts)
def test_a_merged_sketch_comes_back_as_well(some: list[list[float]], more: list[list[float]]) -> None:
    made = window(KEPT, *some)
    made.merge(window(KEPT, *more))
    assert_same(record.from_record(KEPT, on_the_wire(made)), made)  # type: ignore[arg-type]


@pytest.mark.parametrize("times", [1, 2, 8, 16, 32])
def test_large_counts_come_back_as_well(times: int) -> None:
    # Past what one, two and four bytes hold.
    made = window(KEPT, VALUES)
    for _ in range(times):
        made.merge(made)
    again = record.from_record(KEPT, on_the_wire(made))
    assert_same(again, made)  # type: ignore[arg-type]
    assert again.nbytes == made.nbytes


@given(fruit)
def test_words_come_back_from_the_wire(values: list[list[Any]]) -> None:
    made = words(FRUIT, *values)
    again = record.from_record(FRUIT, on_the_wire(made))
    assert record.to_record(again) == record.to_record(made)


def test_an_empty_window_is_few_bytes() -> None:
    assert msgspec.json.encode(record.to_record(window(NORMAL))) == b'{"kind":"numeric","name":"x"}'
    assert msgspec.json.encode(record.to_record(words(FRUIT))) == b'{"kind":"categorical","name":"x"}'


def test_a_window_is_small_on_the_wire() -> None:
    kept = numeric(np.random.default_rng(0).normal(size=1_000))
    long = numeric(np.random.default_rng(0).normal(size=50_000))
    values = np.random.default_rng(1).normal(size=500)
    sizes = [len(msgspec.json.encode(record.to_record(window(item, values)))) for item in (kept, long)]
    assert sizes[0] < 4_500
    assert sizes[1] < 2_500
    assert len(zlib.compress(msgspec.json.encode(record.to_record(window(long, values))))) < 1_000


GOOD = msgspec.to_builtins(record.to_record(window(NORMAL, VALUES)))
GOOD_WORDS = msgspec.to_builtins(record.to_record(words(FRUIT, ["apple", "fig", "kiwi", None])))
EQUAL = msgspec.to_builtins(record.to_record(window(CONSTANT, [2.5])))
MISSING = msgspec.to_builtins(record.to_record(window(NORMAL, [None])))


def change(good: dict[str, Any], **changes: Any) -> dict[str, Any]:
    changed = copy.deepcopy(good)
    for path, value in changes.items():
        *way, last = path.split("__")
        at = changed
        for key in way:
            at = at[key]
        at[last] = value
    return changed


def gaps(*gap: int) -> dict[str, Any]:
    return {"gap": list(gap), "count": [1] * len(gap)}


HOSTILE = [
    (NORMAL, change(GOOD, name="y"), "it is of 'y'"),
    (NORMAL, {**GOOD_WORDS, "name": "x"}, "the baseline has numbers"),
    (FRUIT, GOOD, "the baseline has words"),
    (NORMAL, change(GOOD, n=3), "make 203, not 1"),
    (NORMAL, change(GOOD, n=1), "more missing"),
    (NORMAL, change(GOOD, n=2**53), "make 203"),
    (NORMAL, change(GOOD, n=300), "make 203, not 298"),
    (NORMAL, change(GOOD, min=9.0, max=8.0), "out of order"),
    (NORMAL, change(GOOD, max=1e101), "out of order"),
    (NORMAL, change(GOOD, mean=61.0), "mean is not between"),
    (NORMAL, change(GOOD, m2=-1.0), "m2"),
    (NORMAL, change(GOOD, m2=1e9), "m2"),
    (NORMAL, change(GOOD, inner_mean=50.0), "mean is not between"),
    (NORMAL, change(GOOD, inner_m2=1e9), "m2"),
    (NORMAL, change(GOOD, inner_m2=None), "no inner mean"),
    (NORMAL, change(GOOD, below=0), "below"),
    (NORMAL, change(GOOD, below=300), "below"),
    (NORMAL, change(GOOD, above_excess=1e9), "sum above"),
    (NORMAL, change(GOOD, above_excess=-1.0), "sum above"),
    (NORMAL, change(GOOD, above=2, above_excess=1.0), "sum above"),
    (NORMAL, change(GOOD, above=30, above_excess=200.0), "more values beyond"),
    (NORMAL, change(GOOD, fine=gaps(1, 0)), "not in order"),
    (NORMAL, change(GOOD, fine=gaps(1024, 1)), "reach beyond"),
    (NORMAL, change(GOOD, fine=gaps(1025)), "reach beyond"),
    (NORMAL, change(GOOD, fine=gaps(*[1] * 1025)), "wrong length"),
    (NORMAL, change(GOOD, fine__count=[1]), "wrong length"),
    (NORMAL, change(GOOD, fine={"gap": [1], "count": [0]}), "zero or over"),
    (NORMAL, change(GOOD, fine={"gap": [512], "count": [203]}), "outer bins"),
    (NORMAL, change(GOOD, quantiles={"gap": [9], "count": [203]}), "outer bins"),
    (NORMAL, change(GOOD, points=gaps(1)), "wrong length"),
    (NORMAL, change(MISSING, mean=1.0), "none that is finite"),
    (NORMAL, change(MISSING, missing=2), "more missing"),
    (NOTHING, {"kind": "numeric", "name": "x", "n": 1, "below": 1}, "not there"),
    (NOTHING, {"kind": "numeric", "name": "x", "n": 1, "fine": gaps(1)}, "wrong length"),
    (
        CONSTANT,
        change(msgspec.to_builtins(record.to_record(window(CONSTANT, [2.5]))), values=gaps(2)),
        "no value",
    ),
    (FRUIT, change(GOOD_WORDS, n=9), "make 2, not 7"),
    (FRUIT, change(GOOD_WORDS, missing=9), "more missing"),
    (FRUIT, change(GOOD_WORDS, other=9), "more missing and other"),
    (FRUIT, change(GOOD_WORDS, counts=gaps(3, 1)), "reach beyond"),
]


@pytest.mark.parametrize("feature, sent, problem", HOSTILE, ids=[str(index) for index in range(len(HOSTILE))])
def test_a_lie_is_refused_in_a_sentence(feature: Feature, sent: dict[str, Any], problem: str) -> None:
    with pytest.raises(errors.ContractError, match="the window of 'x' is refused: ") as error:
        record.from_record(feature, msgspec.convert(sent, record.SketchRecord))
    assert problem in str(error.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e308])
@pytest.mark.parametrize("field", ["min", "max", "mean", "m2", "inner_mean", "inner_m2", "below_excess"])
def test_what_is_no_number_is_refused(field: str, number: float) -> None:
    with pytest.raises(errors.ContractError):
        record.from_record(NORMAL, msgspec.convert(change(GOOD, **{field: number}), record.SketchRecord))


@pytest.mark.parametrize("count", [-1, 2**53 + 1])
@pytest.mark.parametrize("field", ["n", "missing", "inf", "below", "above"])
def test_a_count_out_of_range_is_refused(field: str, count: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(change(GOOD, **{field: count}), record.SketchRecord)
    # Made in Python, where msgspec does not look.
    made = msgspec.structs.replace(record.to_record(window(NORMAL, VALUES)), **{field: count})
    with pytest.raises(errors.ContractError):
        record.from_record(NORMAL, made)


counts = st.one_of(st.integers(0, 5), st.integers(0, 2**53), st.just(203), st.just(2**53))
reals = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -70.0, 60.0, 1e100]))
lists = st.lists(st.one_of(st.integers(1, 3), counts), max_size=6)
sparse = st.builds(lambda gap, count: {"gap": gap, "count": count}, lists, lists)
fields: dict[str, Any] = {
    **dict.fromkeys(["n", "missing", "inf", "below", "above"], counts),
    **dict.fromkeys(["min", "max", "mean", "m2", "inner_mean", "inner_m2"], reals),
    **dict.fromkeys(["below_excess", "above_excess"], reals),
    **dict.fromkeys(["fine", "quantiles", "values", "points"], sparse),
}
hostile = st.fixed_dictionaries({}, optional=fields)


@given(st.sampled_from([*FEATURES, FRUIT]), st.booleans(), hostile)
def test_whatever_a_device_says_nothing_breaks(feature: Any, from_good: bool, said: dict[str, Any]) -> None:
    base = GOOD if from_good else {"kind": "numeric", "name": "x"}
    try:
        made = record.from_record(feature, msgspec.convert({**base, **said}, record.SketchRecord))
    except (errors.ContractError, msgspec.ValidationError):
        return
    for measure in statistics.measure(made).values():
        assert np.isfinite(measure.value)
    assert verdict.judge(made).signals is not None
    made.merge(made)
