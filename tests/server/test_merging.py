"""Windows merged in any grouping are what one window over all of it would have been."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflow_agent.drift import record, sketch
from edgeflow_agent.drift.baseline import Feature
from edgeflow_agent.wire.sketches import CategoricalRecord, NumericRecord, SketchRecord, Sparse
from edgeflow_mlflow import errors
from edgeflow_mlflow.domain import drift, histograms, merging, retention, timeline
from edgeflow_mlflow.domain.retention import Span
from tests.drift.conftest import categorical, numeric

KEPT = numeric(np.random.default_rng(1).normal(size=300))
LONG = numeric(np.random.default_rng(1).normal(size=3000))
FLAG = numeric([0.0, 1.0, 1.0, 2.0] * 50)
FRUIT = categorical(["apple"] * 60 + ["fig"] * 30 + ["kiwi"] * 10)

number = st.one_of(st.floats(-6, 6), st.sampled_from([0.0, 1.0, 2.0, 1e9, -50.0, math.nan, 1e200]))
numbers = st.lists(st.lists(number, max_size=12), min_size=1, max_size=6)
words = st.lists(
    st.lists(st.sampled_from(["apple", "fig", "kiwi", "pear", None]), max_size=12), min_size=1, max_size=6
)


def folded(feature: Feature, values: list[Any]) -> SketchRecord:
    made = sketch.empty(feature)
    made.fold(values)
    return record.to_record(made)


def agree(one: SketchRecord, two: SketchRecord, largest: float) -> None:
    left, right = msgspec.to_builtins(one), msgspec.to_builtins(two)
    assert left.keys() == right.keys()
    for name, value in left.items():
        if isinstance(value, float):
            assert value == pytest.approx(right[name], rel=1e-9, abs=1e-7 * max(largest, 1.0) ** 2)
        else:
            assert value == right[name]


def grouped(records: list[SketchRecord], cut: int) -> SketchRecord:
    parts = [part for part in (records[:cut], records[cut:]) if part]
    return merging.merge([merging.merge(part) for part in parts])


@settings(max_examples=150)
@given(st.sampled_from([KEPT, LONG, FLAG]), numbers, st.integers(0, 6))
def test_numbers(feature: Any, parts: list[list[float]], cut: int) -> None:
    whole = folded(feature, [value for part in parts for value in part])
    merged = grouped([folded(feature, part) for part in parts], cut)
    finite = [abs(value) for part in parts for value in part if abs(value) <= 1e100]
    agree(merged, whole, max(finite, default=0.0))
    record.from_record(feature, merged)


@given(words, st.integers(0, 6))
def test_words(parts: list[list[str | None]], cut: int) -> None:
    whole = folded(FRUIT, [value for part in parts for value in part])
    assert grouped([folded(FRUIT, part) for part in parts], cut) == whole


ONE = NumericRecord(name="x", n=1, fine=Sparse(gap=(1,), count=(1,)))


@pytest.mark.parametrize(
    "other",
    [
        NumericRecord(name="y", n=1),
        CategoricalRecord(name="x", n=1),
        NumericRecord(name="x", n=2**53),
        NumericRecord(name="x", n=1, fine=Sparse(gap=(1, 1), count=(1,))),
        NumericRecord(name="x", n=1, fine=Sparse(gap=(0,), count=(1,))),
        NumericRecord(name="x", n=1, fine=Sparse(gap=(2**53,), count=(1,))),
        NumericRecord(name="x", n=1, fine=Sparse(gap=(2**16,) * 9, count=(1,) * 9)),
        NumericRecord(name="x", n=1, fine=Sparse(gap=(1,) * 2000, count=(2**53,) * 2000)),
        NumericRecord(name="x", n=1, mean=1e308, m2=1e308),
    ],
)
def test_what_cannot_be_merged_is_refused(other: SketchRecord) -> None:
    with pytest.raises(ValueError, match=r"they|their"):
        merging.merge([ONE, other])


def test_figures_of_a_device() -> None:
    merged = merging.resources(
        [
            (60.0, {"cpu_ratio": 0.1, "temperature_c": 50.0, "disk_free_bytes": 9}),
            (180.0, {"cpu_ratio": 0.5, "temperature_c": 70.0, "queue_peak": 3}),
        ]
    )
    assert merged == {
        "cpu_ratio": pytest.approx(0.4),
        "temperature_c": 70.0,
        "disk_free_bytes": 9,
        "queue_peak": 3,
    }


# ---- ranges of numbers, hours and chunks


@given(st.lists(st.integers(0, 60)), st.lists(st.integers(0, 60)))
def test_ranges_hold_exactly_what_was_put_in(first: list[int], second: list[int]) -> None:
    ranges = retention.joined(retention.joined([], first), second)
    held = [number for low, high in ranges for number in range(low, high + 1)]
    assert held == sorted(set(first) | set(second))
    assert all(one[1] + 1 < two[0] for one, two in itertools.pairwise(ranges))


@given(st.integers(0, 10**9), st.sampled_from([Span.HOUR, Span.DAY]))
def test_a_window_belongs_to_the_hour_that_it_ended_in(seconds: int, span: Span) -> None:
    end = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    begin = retention.bucket(end, span)
    assert begin < end <= begin + retention.LENGTH[span]
    assert begin.minute == begin.second == begin.microsecond == 0
    assert span is Span.HOUR or begin.hour == 0


@given(st.lists(st.integers(0, 2000), max_size=30), st.integers(1, 2000), st.booleans())
def test_chunks_have_enough_and_are_few(samples: list[int], least: int, with_rest: bool) -> None:
    parts = drift.chunks(samples, least, 3, with_rest=with_rest)
    places = [place for part in parts for place in part]
    assert places == list(range(len(places)))
    assert len(parts) <= 3
    assert with_rest or all(sum(samples[place] for place in part) >= least for part in parts)
    assert not with_rest or len(places) == len(samples)


def test_thresholds_name_what_is_near() -> None:
    assert (
        drift.thresholds({"limits": {"psi_groups": 0.3, "missing_share": None}}).limits["psi_groups"] == 0.3
    )
    with pytest.raises(errors.InvalidError, match="did you mean psi_groups"):
        drift.thresholds({"limits": {"psi_group": 0.3}})
    for wrong in ({"limits": {"psi_groups": -1.0}}, {"chance": 1.5}, {"min_samples": 0}):
        with pytest.raises(errors.InvalidError):
            drift.thresholds(wrong)


# ---- time and pictures


def test_quantiles_of_a_histogram() -> None:
    counts = [0] * 16
    assert timeline.quantile(counts, 0.5) is None
    counts[3] = 100  # from 1 to 2.5 ms
    assert timeline.quantile(counts, 0.5) == pytest.approx(0.00175)
    counts[15] = 100
    assert timeline.quantile(counts, 0.99) == 10.0
    assert timeline.quantile(counts, 0.25) == pytest.approx(0.00175)


def test_a_range_has_no_more_points_than_can_be_drawn() -> None:
    now = datetime(2026, 3, 3, tzinfo=UTC)
    assert timeline.between(None, None, now) == (now - timedelta(hours=1), now)
    for days in (0.001, 1, 30, 400, 3650):
        over = timeline.steps(now - timedelta(days=days), now, 0)
        assert (over.end - over.start).total_seconds() / over.step_s <= timeline.MOST_POINTS
    for start, end in ((now, now), (now.replace(tzinfo=None), now)):
        with pytest.raises(errors.InvalidError):
            timeline.between(start, end, now)
    with pytest.raises(errors.InvalidError, match="a step of"):
        timeline.steps(now - timedelta(days=1), now, 1)


@pytest.mark.parametrize("feature", [KEPT, LONG, FLAG, FRUIT], ids=["kept", "long", "flag", "words"])
def test_a_picture_holds_all_values(feature: Feature) -> None:
    made = sketch.empty(feature)
    made.fold(["apple", "pear"] if feature is FRUIT else [0.0, 1.0, 5.0, 900.0])
    drawn = histograms.of(made)
    assert sum(drawn.baseline) == pytest.approx(1)
    assert sum(drawn.live) == pytest.approx(1)
    bars = len(drawn.labels) or len(drawn.edges) - 1
    assert len(drawn.baseline) == len(drawn.live) == bars <= histograms.BARS + 1
