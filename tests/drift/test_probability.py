"""Tails and limits against SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgeflow_agent.drift import alarms, probability


@given(st.floats(0, 1e4), st.integers(1, 2000))
def test_the_tail_of_chi_square(x: float, freedom: int) -> None:
    expected = stats.chi2.sf(x, freedom)
    assert probability.chi_square_tail(x, freedom) == pytest.approx(expected, rel=1e-8, abs=1e-13)


@given(st.floats(1e-12, 1 - 1e-6), st.integers(1, 2000))
def test_the_limits_of_chi_square(p: float, freedom: int) -> None:
    expected = stats.chi2.isf(p, freedom)
    assert probability.chi_square_limit(p, freedom) == pytest.approx(expected, rel=1e-8)


def test_what_is_beyond_every_limit() -> None:
    assert probability.chi_square_tail(math.inf, 3) == 0
    assert probability.chi_square_tail(0, 3) == 1
    assert probability.chi_square_tail(1e6, 3) == 0


@given(st.floats(1e-12, 0.999))
def test_normal_limits(p: float) -> None:
    z = probability.normal_limit(p)
    assert z == pytest.approx(stats.norm.isf(p / 2), rel=1e-9, abs=1e-9)
    assert 2 * probability.normal_tail(z) == pytest.approx(p, rel=1e-9)


@given(st.integers(1, 400), st.integers(1, 400), st.data())
def test_more_often_is_fishers_test(n: int, m: int, data: st.DataObject) -> None:
    x, y = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    tail = probability.more_often_tail(x, n, y, m)
    if x * m <= y * n:
        assert tail == 1
    else:
        assert tail == pytest.approx(stats.hypergeom.sf(x - 1, n + m, n, x + y), rel=1e-9)


def test_more_often_among_very_many() -> None:
    exact = probability.more_often_tail(5_400, 4_000_000, 5_000, 4_000_000)
    near = probability.more_often_tail(54_000, 40_000_000, 50_000, 40_000_000)
    assert exact == pytest.approx(stats.hypergeom.sf(5_399, 8_000_000, 4_000_000, 10_400), rel=1e-6)
    assert near == pytest.approx(stats.norm.sf(4_000 / math.sqrt(104_000)), rel=1e-2)


@pytest.mark.parametrize("n, m", [(1, 1), (5, 9), (40, 40), (300, 200), (500, 1000), (997, 1000), (64, 9000)])
def test_the_exact_tail_of_kolmogorov_and_smirnov(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    for shift in (0, 0.1, 0.3):
        result = stats.ks_2samp(rng.normal(size=n), rng.normal(shift, size=m), method="exact")
        exact = probability.ks_tail_exact(result.statistic, n, m)
        assert exact == pytest.approx(result.pvalue, rel=1e-9)


def test_the_limit_of_kolmogorov_and_smirnov() -> None:
    for n, m, d in itertools.product((200, 500, 3000), (500, 1000, 9000), (0.005, 0.02, 0.05, 0.1, 0.15)):
        exact = stats.ks_2samp(np.arange(n), np.arange(m) + d, method="exact")
        assert probability.ks_tail(d, n, m) == pytest.approx(
            stats.kstwo.sf(d, round(n * m / (n + m))), rel=0.25, abs=2e-3
        )
        assert probability.ks_tail_exact(exact.statistic, n, m) == pytest.approx(exact.pvalue, rel=1e-9)
    assert probability.ks_tail_exact(0.03, 20_000, 500) == probability.ks_tail(0.03, 20_000, 500)
    assert probability.ks_tail(1.0, 500, 500) < 1e-100


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.5))
def test_benjamini_and_hochberg(p_values: list[float], q: float) -> None:
    adjusted = stats.false_discovery_control(p_values)
    for stands_out, p in zip(alarms.benjamini_hochberg(p_values, q), adjusted, strict=True):
        if abs(p - q) > 1e-12:
            assert stands_out == (p <= q)


def test_no_number_never_stands_out() -> None:
    assert alarms.benjamini_hochberg([math.nan, 1e-9, 0.9], 0.05) == [False, True, False]
    assert alarms.benjamini_hochberg([], 0.05) == []
    with pytest.raises(ValueError, match="q must"):
        alarms.benjamini_hochberg([0.5], 0)


def test_what_holds() -> None:
    assert alarms.holds([True, False, True, True], 3, 4)
    assert not alarms.holds([True, True, True, False, False], 2, 3)
    assert not alarms.holds([True], 2, 5)
    with pytest.raises(ValueError, match="k must"):
        alarms.holds([True], 3, 2)
