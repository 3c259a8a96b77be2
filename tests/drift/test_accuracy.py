"""The numbers against NumPy and SciPy on the raw samples: with the same bins, to the twelfth digit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import spatial, stats

from edgeflow_agent.drift import bins, distances, probability
from edgeflow_agent.drift.measures import Statistic
from edgeflow_agent.drift.statistics import measure
from tests.drift.conftest import categorical, numeric, window, words

Floats = npt.NDArray[np.float64]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# Per case the samples of the baseline and those of the window.
CASES: dict[str, tuple[Floats, Floats]] = {
    "nothing": (rng(0).normal(size=20_000), rng(1).normal(size=2_000)),
    "shifted": (rng(2).normal(5, 2, size=20_000), rng(3).normal(5.4, 2, size=2_000)),
    "far": (rng(4).normal(size=20_000), rng(5).normal(30, 1, size=2_000)),
    "scaled": (rng(6).normal(size=20_000), rng(7).normal(0, 1.5, size=2_000)),
    "lognormal": (rng(8).lognormal(size=20_000), rng(9).lognormal(0.2, size=2_000)),
    "heavy tails": (rng(10).standard_t(2, size=20_000), rng(11).standard_cauchy(size=2_000)),
    "dirty": (
        np.append(rng(12).normal(size=20_000), [np.nan, np.inf]),
        np.append(rng(13).normal(0.3, size=2_000), [np.nan] * 50 + [-np.inf]),
    ),
    "integers": (rng(14).poisson(40, size=20_000) * 1.0, rng(15).poisson(43, size=2_000) * 1.0),
    "few values": (rng(16).poisson(1, size=20_000) * 1.0, rng(17).poisson(1.3, size=2_000).clip(0, 6) * 1.0),
    "constant": (np.full(500, 2.5), np.append(np.full(400, 2.5), 3.0)),
    "zeros": (
        np.where(rng(18).random(20_000) < 0.6, 0, rng(19).exponential(size=20_000)),
        np.where(rng(20).random(2_000) < 0.5, 0, rng(21).exponential(size=2_000)),
    ),
    "small": (rng(22).normal(size=800), rng(23).normal(0.2, size=600)),
    "small integers": (rng(24).poisson(40, size=1_000) * 1.0, rng(25).poisson(41, size=500) * 1.0),
    "tiny": (rng(26).normal(size=3), rng(27).normal(size=2)),
    "small numbers": (rng(28).normal(0, 1e-5, size=5_000), rng(29).normal(1e-5, 1e-5, size=900)),
}
every_case = pytest.mark.parametrize("name", CASES)


def finite(name: str) -> tuple[Floats, Floats]:
    one, two = CASES[name]
    return one[np.isfinite(one)], two[np.isfinite(two)]


def measured(name: str) -> dict[Statistic, float]:
    reference, current = CASES[name]
    made = measure(window(numeric(reference), *np.array_split(current, 7)))
    return {statistic: found.value for statistic, found in made.items()}


def filled(counts: Any) -> Floats:
    shares = np.asarray(counts) / np.sum(counts)
    least = min(share for share in shares if share > 0)
    return np.array([share or (least / 1e6 if least <= 1e-4 else 1e-4) for share in shares])


@every_case
def test_moments(name: str) -> None:
    (reference, current), found = finite(name), measured(name)
    unit = max(np.std(reference), 0.001)
    shift = (np.mean(current) - np.mean(reference)) / unit
    assert found[Statistic.MEAN_SHIFT] == pytest.approx(
        shift, rel=1e-9, abs=1e-9 * np.abs(current).max() / unit
    )
    fine = numeric(reference).distribution
    assert fine is not None
    clipped = np.clip(current, fine.fine_low, fine.fine_high)
    shift = (np.mean(clipped) - np.mean(reference)) / unit
    assert found[Statistic.MEAN_SHIFT_WINSORISED] == pytest.approx(shift, rel=1e-9, abs=1e-9)
    if np.std(reference):
        assert found[Statistic.STD_RATIO] == pytest.approx(np.std(current) / unit, rel=1e-9)
        assert found[Statistic.STD_RATIO_WINSORISED] == pytest.approx(np.std(clipped) / unit, rel=1e-9)


@every_case
def test_quantile_bins(name: str) -> None:
    (reference, current), found = finite(name), measured(name)
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, 257)))
    if edges.size == 1:
        inside = (current == edges[0]).sum()
        counts = [0, reference.size, 0], [(current < edges[0]).sum(), inside, (current > edges[0]).sum()]
    else:
        clipped = np.clip(current, edges[0], edges[-1])
        counts = np.histogram(reference, edges)[0], np.histogram(clipped, edges)[0]
    one, two = filled(counts[0]), filled(counts[1])
    assert found[Statistic.PSI_QUANTILES] == pytest.approx(np.sum((one - two) * np.log(one / two)), rel=1e-12)
    assert found[Statistic.KL_NAT_QUANTILES] == pytest.approx(stats.entropy(one, two), rel=1e-12, abs=1e-14)
    distance = spatial.distance.jensenshannon(*counts)
    assert found[Statistic.JS_DISTANCE_NAT_QUANTILES] == pytest.approx(distance, rel=1e-12, abs=1e-9)


@every_case
def test_wasserstein_of_the_same_bins(name: str) -> None:
    (reference, current), found = finite(name), measured(name)
    feature = numeric(reference)
    seen = feature.distribution
    assert seen is not None
    edges = np.linspace(seen.fine_low, seen.fine_high, 1025)
    centres = (edges[1:] + edges[:-1]) / 2
    if seen.values.size and np.isin(current, seen.values).all():
        expected = stats.wasserstein_distance(reference, current)
        expected_winsorised = expected
    else:
        inside = (current >= seen.fine_low) & (current <= seen.fine_high)
        place = bins.fine_cells(current, seen.fine_low, seen.fine_high)
        at = np.where(inside, centres[place], current)
        moved = np.clip(at, seen.fine_low, seen.fine_high)
        expected, expected_winsorised = (
            stats.wasserstein_distance(centres, values, seen.fine) for values in (at, moved)
        )
    unit = max(np.std(reference), 0.001)
    assert found[Statistic.WASSERSTEIN_PER_STD] == pytest.approx(expected / unit, rel=1e-12, abs=1e-12)
    winsorised = found[Statistic.WASSERSTEIN_PER_STD_WINSORISED]
    assert winsorised == pytest.approx(expected_winsorised / unit, rel=1e-12, abs=1e-12)


@every_case
def test_the_kolmogorov_smirnov_distance(name: str) -> None:
    (reference, current) = finite(name)
    found = measure(window(numeric(reference), current))[Statistic.KS_DISTANCE]
    expected = stats.ks_2samp(reference, current)
    if found.approx:
        # Never too large, and too small by what one quantile bin can hide.
        assert expected.statistic - 1 / 256 <= found.value <= expected.statistic + 1e-12
    else:
        assert found.value == pytest.approx(expected.statistic, abs=1e-12)
        tail = probability.ks_tail_exact(found.value, current.size, reference.size)
        if max(current.size, reference.size) <= probability.EXACT_KS:
            assert tail == pytest.approx(expected.pvalue, rel=1e-9)


@given(
    st.lists(st.integers(-9, 9).map(float) | st.floats(-9, 9), min_size=1, max_size=80),
    st.lists(st.integers(-9, 9).map(float) | st.floats(-9, 9), min_size=1, max_size=80),
)
def test_the_distance_to_a_small_baseline_is_exact(reference: list[float], current: list[float]) -> None:
    found = measure(window(numeric(reference), current))[Statistic.KS_DISTANCE]
    assert not found.approx
    assert found.value == pytest.approx(stats.ks_2samp(reference, current).statistic, abs=1e-12)


counts = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=30).filter(
    lambda pairs: sum(one for one, _ in pairs) > 0 < sum(two for _, two in pairs)
)
DISTANCES = [
    distances.psi, distances.kl_nat, distances.js_distance_nat, distances.total_variation,
    distances.chi_square_two_samples,
]  # fmt: skip


@given(counts)
def test_what_every_distance_keeps(pairs: list[tuple[int, int]]) -> None:
    one, two = (np.array(side) for side in zip(*pairs, strict=True))
    for distance in DISTANCES:
        assert distance(one, one) == pytest.approx(0, abs=1e-7)
        assert distance(one, two) >= 0
        # The order of the bins does not matter, nor, but for a test, how many values there are.
        assert distance(one[::-1], two[::-1]) == pytest.approx(distance(one, two), rel=1e-9, abs=1e-12)
        if distance is not distances.chi_square_two_samples:
            assert distance(one * 7, two * 7) == pytest.approx(distance(one, two), rel=1e-9, abs=1e-12)
    assert distances.js_distance_nat(one, two) <= math.sqrt(math.log(2)) + 1e-12
    assert distances.total_variation(one, two) <= 1 + 1e-12


def test_chi_square_is_scipys() -> None:
    one, two = np.array([40, 30, 20, 10]), np.array([10, 12, 9, 6])
    table = stats.chi2_contingency(np.array([one, two]), correction=False)
    found = distances.chi_square_two_samples(one, two)
    assert found == pytest.approx(table.statistic, rel=1e-12)
    assert probability.chi_square_tail(found, 3) == pytest.approx(table.pvalue, rel=1e-12)
    goodness = stats.chisquare(two, one * two.sum() / one.sum())
    assert distances.chi_square_one_sample(one, two) == pytest.approx(goodness.statistic, rel=1e-12)
    assert distances.chi_square_p(one, two) == pytest.approx(goodness.pvalue, rel=1e-10)
    assert distances.chi_square_p(np.array([4, 0]), np.array([3, 1])) == 0
    assert distances.chi_square_p(np.array([4]), np.array([3])) == 1


def test_what_cannot_be_measured_is_left_out() -> None:
    nothing = {Statistic.MISSING_SHARE, Statistic.NON_FINITE_SHARE}
    assert measure(window(numeric([1.0, 2.0]))) == {}
    assert set(measure(window(numeric([1.0, 2.0]), [np.nan]))) == nothing
    assert set(measure(window(numeric([np.nan]), [1.0]))) == nothing
    assert measure(window(numeric([]), [1.0])) == {}
    assert set(measure(words(categorical(["a", None]), [None]))) == {Statistic.MISSING_SHARE}
    assert measure(words(categorical(["a"]))) == {}


def test_only_what_is_wanted_is_computed() -> None:
    wanted = [Statistic.KS_DISTANCE, Statistic.PSI_CATEGORIES, Statistic.MISSING_SHARE]
    found = measure(window(numeric(np.arange(50.0)), [1.0, 2.0]), wanted)
    assert list(found) == [Statistic.KS_DISTANCE, Statistic.MISSING_SHARE]
