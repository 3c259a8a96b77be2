"""What a window holds: NumPy's counts, whatever the order in which its parts came together."""

from __future__ import annotations

import bisect
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent import errors
from edgeflow_agent.drift import bins
from edgeflow_agent.drift import build as written
from edgeflow_agent.drift.record import to_record
from edgeflow_agent.drift.sketch import NumericSketch
from tests.drift.conftest import categorical, numeric, window, words

RNG = np.random.default_rng(7)
NORMAL = numeric(RNG.normal(size=3_000))
KEPT = numeric(np.round(RNG.normal(size=400), 1))
DISCRETE = numeric(RNG.integers(0, 7, size=2_000))
CONSTANT = numeric([2.5] * 40)
NOTHING = numeric([math.nan])
FEATURES = [NORMAL, KEPT, DISCRETE, CONSTANT, NOTHING]
FRUIT = categorical(["apple", "pear", "apple", None, "fig"] * 20)

numbers = st.one_of(
    st.floats(-4, 4),
    st.integers(-3, 8).map(float),
    st.just(2.5),
    st.floats(allow_nan=True, allow_infinity=True),
)
parts = st.lists(st.lists(numbers, max_size=30), min_size=1, max_size=6)
fruit = st.lists(
    st.lists(st.sampled_from(["apple", "fig", "kiwi", None, 1.5, True]), max_size=20), max_size=6
)


def assert_same(one: NumericSketch, two: NumericSketch) -> None:
    assert (one.n, one.missing, one.inf, one.min, one.max) == (two.n, two.missing, two.inf, two.min, two.max)
    for name in ("fine", "quantiles", "values", "points"):
        assert getattr(one, name).dense().tolist() == getattr(two, name).dense().tolist()
    if not one.finite:
        return
    scale = max(abs(one.min), abs(one.max))
    for name in ("moments", "inner"):
        mine, its = getattr(one, name), getattr(two, name)
        assert mine.n == its.n
        assert mine.mean == pytest.approx(its.mean, rel=1e-9, abs=1e-9 * scale)
        assert mine.m2 == pytest.approx(its.m2, rel=1e-9, abs=1e-9 * scale**2 * one.n)
    for mine, its in ((one.below, two.below), (one.above, two.above)):
        assert mine.count == its.count
        assert mine.excess == pytest.approx(its.excess, rel=1e-9)


@given(st.sampled_from(FEATURES), parts, st.randoms(use_true_random=False))
def test_any_grouping_and_order_of_merging_is_one_fold(
    feature: Any, values: list[list[float]], dice: Any
) -> None:
    whole = window(feature, [value for part in values for value in part])
    pieces = [window(feature, part) for part in values]
    while len(pieces) > 1:
        piece = pieces.pop(dice.randrange(len(pieces)))
        pieces[dice.randrange(len(pieces))].merge(piece)
    assert_same(pieces[0], whole)
    assert_same(window(feature, *values), whole)


@given(fruit)
def test_words_merge_as_well(values: list[list[Any]]) -> None:
    whole = words(FRUIT, [value for part in values for value in part])
    merged = words(FRUIT)
    for part in reversed(values):
        merged.merge(words(FRUIT, part))
    assert to_record(merged) == to_record(whole)


@given(st.sampled_from(FEATURES[:4]), st.lists(numbers, min_size=1, max_size=60))
def test_counts_are_those_of_numpy_and_bisect(feature: Any, values: list[float]) -> None:
    made, seen = window(feature, values), feature.distribution
    finite = np.array([value for value in values if abs(value) <= 1e100])
    assert made.n == len(values)
    assert made.missing == sum(math.isnan(value) for value in values)
    assert made.finite == finite.size
    quantiles = made.quantiles.dense()
    if seen.edges.size > 1:
        assert quantiles[1:-1].tolist() == np.histogram(finite, seen.edges)[0].tolist()
    else:
        assert quantiles[1] == (finite == seen.min).sum()
    assert quantiles[0] == (finite < seen.min).sum()
    assert quantiles[-1] == (finite > seen.max).sum()
    places = written.fine_index(np.clip(finite, seen.fine_low, seen.fine_high), seen.fine_low, seen.fine_high)
    assert made.fine.dense().tolist() == np.bincount(places, minlength=1024).tolist()
    if seen.points.size:
        cells = [bisect.bisect_left(seen.points, v) + bisect.bisect_right(seen.points, v) for v in finite]
        assert (
            made.points.dense().tolist()
            == np.bincount(np.array(cells, dtype=int), minlength=2 * seen.points.size + 1).tolist()
        )
    if seen.values.size:
        known = [int((finite == value).sum()) for value in seen.values]
        assert made.values.dense().tolist() == [*known, finite.size - sum(known)]


@given(st.floats(-1e100, 1e100), st.floats(0, 1e100), st.integers(2, 40))
def test_the_fine_bins_are_the_writers(low: float, width: float, seed: int) -> None:
    begin, end = written.fine_range(low, low + width)
    values = np.random.default_rng(seed).uniform(begin, end, size=50)
    assert bins.fine_cells(values, begin, end).tolist() == written.fine_index(values, begin, end).tolist()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(1, 300))
def test_sturges_edges_need_no_samples(values: list[float], times: int) -> None:
    samples = np.array(values * times)
    expected = np.histogram_bin_edges(samples, bins="sturges")
    assert bins.sturges_edges(samples.min(), samples.max(), samples.size).tolist() == expected.tolist()


def test_what_is_no_number_is_missing() -> None:
    made = window(NORMAL, [1, 2.5, None, "3", b"4", object(), 10**400, -(10**400), True])
    assert (made.n, made.missing, made.inf, made.finite) == (9, 4, 2, 3)
    assert window(NORMAL, np.array([1, 2], dtype=np.uint8), np.array([0.5], dtype=np.float16)).finite == 3
    assert window(NORMAL, np.array([1, None], dtype=object), np.array(["a"])).missing == 2
    assert window(NORMAL, np.zeros(0), []).n == 0
    with pytest.raises(errors.InputError, match="one column"):
        window(NORMAL, np.zeros((2, 2)))


def test_moments_step_over_what_is_no_number() -> None:
    # Trap 9: one NaN in a running mean, and it never is a number again.
    values = RNG.normal(3, 2, size=1_000)
    dirty = values.copy()
    made = window(NORMAL, *np.split(np.insert(dirty, [5, 300, 900], [np.nan, np.inf, -np.inf]), [100, 400]))
    assert (made.n, made.missing, made.inf) == (1_003, 1, 2)
    assert made.moments.mean == pytest.approx(values.mean(), rel=1e-12)
    assert made.moments.std == pytest.approx(values.std(), rel=1e-12)


def test_moments_far_from_zero() -> None:
    values = 1e8 + RNG.normal(size=2_000)
    made = window(NORMAL, *np.split(values, 40))
    assert made.moments.std == pytest.approx(values.std(), rel=1e-9)


def test_an_absurd_reading_is_in_the_moments_and_not_in_the_inner_ones() -> None:
    values = RNG.normal(size=999)
    made = window(NORMAL, values, [1e100])
    assert made.moments.mean == pytest.approx(1e97)
    assert made.inner.mean == pytest.approx((values.sum() + NORMAL.distribution.fine_high) / 1_000)  # type: ignore[union-attr]
    assert (made.above.count, made.above.excess) == (1, 1e100)
    assert made.below.count == 0


def test_words_are_counted_as_the_baseline_writes_them() -> None:
    feature = categorical(np.array([True, 1, 1.5, b"x", "\ud800"], dtype=object))
    made = words(feature, [True, np.bool_(True), 1, 1.5, b"x", "\ud800", math.nan, None, "new"])
    counts = dict(zip(feature.categories, made.counts.dense().tolist(), strict=True))
    assert counts == {"true": 2, "1": 1, "1.5": 1, "x": 1, "?": 1}
    assert (made.n, made.missing, made.other, made.present) == (9, 2, 1, 7)
    assert words(feature, np.array(["x", "y"]), np.array([1, 7])).other == 2


def test_windows_of_different_baselines_do_not_merge() -> None:
    with pytest.raises(errors.ContractError, match="different baselines"):
        window(NORMAL).merge(window(KEPT))
    with pytest.raises(errors.ContractError, match="different baselines"):
        window(NORMAL).merge(window(NOTHING))
    with pytest.raises(errors.ContractError, match="different baselines"):
        words(FRUIT).merge(words(categorical(["apple"])))
    again = numeric([1.0, 2.0])
    same = window(numeric([1.0, 2.0]), [1.0])
    same.merge(window(again, [2.0]))
    assert same.n == 2


@pytest.mark.parametrize("n", [500, 20_000])
def test_the_memory_of_a_window(n: int) -> None:
    kept = numeric(np.random.default_rng(0).normal(size=1_000))
    long = numeric(np.random.default_rng(0).normal(size=50_000))
    values = np.random.default_rng(1).normal(size=n)
    # With the 1,000 values of a small baseline, which make ks_distance exact, and without.
    assert window(kept, *np.split(values, 50)).nbytes == 2 * (1_024 + 258 + 2_001) < 8_000
    assert window(long, *np.split(values, 50)).nbytes == 2 * (1_024 + 258) < 3_000


def test_counters_widen_when_they_must() -> None:
    made = window(CONSTANT)
    for _ in range(20):
        made.merge(window(CONSTANT, np.full(5_000, 2.5)))
    assert made.values.dense().tolist() == [100_000, 0]
    assert made.fine.nbytes == 4 * 1_024
    for _ in range(17):
        copy = window(CONSTANT)
        copy.merge(made)
        made.merge(copy)
    assert made.values.dense()[0] == made.n == 100_000 * 2**17
    assert made.fine.nbytes == 8 * 1_024
