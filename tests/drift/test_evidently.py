"""What a sketch gives beside what Evidently gives from the raw samples: the accuracy contract."""

from __future__ import annotations

import numpy as np
import pytest

from edgeflow_agent.drift.bins import sturges_edges
from edgeflow_agent.drift.measures import Measure, Statistic
from edgeflow_agent.drift.statistics import measure
from tests.drift import evidently
from tests.drift.conftest import categorical, numeric, window, words
from tests.drift.test_accuracy import CASES, finite, rng

WIDE = [name for name in CASES if np.unique(finite(name)[0]).size > 20]
FEW = ["few values", "constant"]
# All of the window lies far beyond the bins, where only its ends and its sum are known.
LOOSE = {"far": 0.03}


def found(name: str) -> dict[Statistic, Measure]:
    reference, current = CASES[name]
    return measure(window(numeric(reference), *np.array_split(current, 3)))


@pytest.mark.parametrize("name", WIDE)
def test_over_evidentlys_bins(name: str) -> None:
    made, samples, loose = found(name), CASES[name], LOOSE.get(name, 1e-3)
    assert made[Statistic.PSI_STURGES].approx
    expected = evidently.psi(*samples)
    assert made[Statistic.PSI_STURGES].value == pytest.approx(expected, abs=0.01, rel=loose)
    expected = evidently.kl_div(*samples)
    assert made[Statistic.KL_NAT_STURGES].value == pytest.approx(expected, abs=0.005, rel=loose)
    expected = evidently.jensenshannon(*samples)
    assert made[Statistic.JS_DISTANCE_NAT_STURGES].value == pytest.approx(expected, abs=0.005)
    seen = numeric(samples[0]).distribution
    assert seen is not None
    width = (seen.fine_high - seen.fine_low) / 1024 / max(seen.std, 0.001)
    expected = evidently.wasserstein(*samples)
    assert made[Statistic.WASSERSTEIN_PER_STD].value == pytest.approx(expected, abs=width, rel=1e-3)


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("n", [600, 20_000])
def test_over_evidentlys_bins_again_and_again(n: int, seed: int) -> None:
    dice = rng(seed)
    reference = dice.normal(size=n)
    for current in (dice.normal(0.2, 1, 2_000), dice.normal(size=2_000), dice.normal(0, 1.5, 2_000)):
        made = measure(window(numeric(reference), current))
        expected = evidently.psi(reference, current)
        assert made[Statistic.PSI_STURGES].value == pytest.approx(expected, abs=0.01)
        expected = evidently.kl_div(reference, current)
        assert made[Statistic.KL_NAT_STURGES].value == pytest.approx(expected, abs=0.005)
        expected = evidently.jensenshannon(reference, current)
        assert made[Statistic.JS_DISTANCE_NAT_STURGES].value == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0])
@pytest.mark.parametrize("n", [600, 20_000])
def test_over_evidentlys_bins_however_far_it_moved(n: int, shift: float) -> None:
    """The tolerances of docs/adr/0023."""
    for seed in range(4):
        dice = rng(seed)
        reference, current = dice.normal(size=n), dice.normal(shift, 1, 2_000)
        made = measure(window(numeric(reference), current))
        expected = evidently.psi(reference, current)
        assert made[Statistic.PSI_STURGES].value == pytest.approx(expected, abs=0.01, rel=0.04)
        expected = evidently.kl_div(reference, current)
        assert made[Statistic.KL_NAT_STURGES].value == pytest.approx(expected, abs=0.005, rel=0.05)
        expected = evidently.jensenshannon(reference, current)
        assert made[Statistic.JS_DISTANCE_NAT_STURGES].value == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("name", FEW)
def test_over_few_values_it_is_exact(name: str) -> None:
    made, samples = found(name), CASES[name]
    unseen = {*samples[1].tolist()} - {*samples[0].tolist()}
    assert len(unseen) <= 1
    assert made[Statistic.PSI_VALUES].value == pytest.approx(evidently.psi(*samples), rel=1e-12)
    assert made[Statistic.KL_NAT_VALUES].value == pytest.approx(evidently.kl_div(*samples), rel=1e-12)
    distance = evidently.jensenshannon(*samples)
    assert made[Statistic.JS_DISTANCE_NAT_VALUES].value == pytest.approx(distance, rel=1e-12)
    p_value = evidently.chisquare(*samples)
    assert made[Statistic.CHI_SQUARE_P_VALUES].value == pytest.approx(p_value, rel=1e-9)
    for statistic in (Statistic.PSI_VALUES, Statistic.JS_DISTANCE_NAT_VALUES, Statistic.CHI_SQUARE_P_VALUES):
        assert not made[statistic].approx
    assert Statistic.PSI_STURGES not in made


@pytest.mark.parametrize("seed", range(5))
def test_over_categories_it_is_exact(seed: int) -> None:
    dice = rng(seed)
    reference = dice.choice(["a", "b", "c", "d", None], 3_000, p=[0.5, 0.3, 0.15, 0.04, 0.01])
    current = dice.choice(["a", "b", "c", "d"], 700, p=[0.45, 0.3, 0.2, 0.05])
    made = measure(words(categorical(reference), current))
    assert made[Statistic.PSI_CATEGORIES].value == pytest.approx(evidently.psi(reference, current), rel=1e-12)
    expected = evidently.kl_div(reference, current)
    assert made[Statistic.KL_NAT_CATEGORIES].value == pytest.approx(expected, rel=1e-12)
    expected = evidently.jensenshannon(reference, current)
    assert made[Statistic.JS_DISTANCE_NAT_CATEGORIES].value == pytest.approx(expected, rel=1e-12)
    expected = evidently.chisquare(reference, current)
    assert made[Statistic.CHI_SQUARE_P_CATEGORIES].value == pytest.approx(expected, rel=1e-9)
    assert not any(number.approx for number in made.values())


def test_words_that_the_baseline_does_not_list() -> None:
    # Trap 7: distances that sum over what was not seen stay exact; the filling of zeros is per word.
    reference = ["a"] * 60 + ["b"] * 40
    for current in (["a"] * 50 + ["x"] * 10, ["a"] * 50 + ["x", "y", "z"] * 10):
        made = measure(words(categorical(reference), current))
        expected = evidently.jensenshannon(reference, current)
        assert made[Statistic.JS_DISTANCE_NAT_CATEGORIES].value == pytest.approx(expected, rel=1e-12)
        assert not made[Statistic.JS_DISTANCE_NAT_CATEGORIES].approx
        assert made[Statistic.CHI_SQUARE_P_CATEGORIES].value == evidently.chisquare(reference, current) == 0
        assert made[Statistic.PSI_CATEGORIES].approx
        assert made[Statistic.PSI_CATEGORIES].value == pytest.approx(
            evidently.psi(reference, current), rel=0.4
        )
        assert made[Statistic.UNSEEN_SHARE].value == current.count("x") * len({*current} - {"a"}) / len(
            current
        )
    one = [*reference, "x"]
    made = measure(words(categorical(reference), one))
    assert not made[Statistic.PSI_CATEGORIES].approx
    assert made[Statistic.PSI_CATEGORIES].value == pytest.approx(evidently.psi(reference, one), rel=1e-12)


def test_more_categories_than_a_baseline_lists() -> None:
    dice = rng(3)
    reference = [f"{index:04}" for index in dice.geometric(0.01, size=5_000)]
    current = [f"{index:04}" for index in dice.geometric(0.011, size=1_000)]
    feature = categorical(reference)
    assert feature.other > 0
    made = measure(words(feature, current))
    assert made[Statistic.JS_DISTANCE_NAT_CATEGORIES].approx
    # Putting words together can only bring both sides closer.
    found = made[Statistic.JS_DISTANCE_NAT_CATEGORIES].value
    assert 0.1 < found < evidently.jensenshannon(reference, current)


def test_integers_are_binned_as_float64() -> None:
    # Trap 6: NumPy makes bins of integers at least 1 wide, so the same numbers would give another index.
    numbers = rng(5).integers(0, 10, 5_000)
    whole, parts = (np.histogram_bin_edges(side, bins="sturges") for side in (numbers, numbers * 1.0))
    assert whole.size == 10
    assert parts.size == 15
    assert sturges_edges(0, 9, numbers.size).tolist() == parts.tolist()
    made = measure(window(numeric(numbers), rng(6).integers(0, 9, 900).astype(np.int8)))
    expected = evidently.psi(numbers, rng(6).integers(0, 9, 900))
    assert made[Statistic.PSI_VALUES].value == pytest.approx(expected, rel=1e-12)


def test_a_constant_is_measured_in_thousandths() -> None:
    # Trap 6 again: no deviation to measure in.
    reference, current = np.full(600, 7.0), np.full(500, 7.01)
    made = measure(window(numeric(reference), current))
    expected = evidently.wasserstein(reference, current)
    assert expected == pytest.approx(10)
    assert made[Statistic.MEAN_SHIFT].value == pytest.approx(10)
    # Within one of its fine bins, 7 * 1.5 / 1024 wide in parts of 0.001.
    assert made[Statistic.WASSERSTEIN_PER_STD].value == pytest.approx(expected, abs=3.5)
    assert Statistic.STD_RATIO not in made
    assert made[Statistic.UNSEEN_SHARE].value == 1


def test_one_absurd_reading_blinds_evidently_and_not_us() -> None:
    # Trap 1, both halves.
    reference = rng(7).normal(size=50_000)
    shifted = np.append(rng(8).normal(3, 1, size=2_000), 1e9)
    made = measure(window(numeric(reference), shifted))
    assert evidently.psi(reference, shifted) < 0.01
    assert made[Statistic.PSI_STURGES].value == pytest.approx(evidently.psi(reference, shifted), abs=0.01)
    assert made[Statistic.WASSERSTEIN_PER_STD].value == pytest.approx(
        evidently.wasserstein(reference, shifted), rel=1e-6
    )
    expected = evidently.psi(reference, shifted[:-1])
    assert expected > 5
    assert made[Statistic.PSI_STURGES_WINSORISED].value > 5
    assert made[Statistic.KL_NAT_STURGES_WINSORISED].value > 1
    assert made[Statistic.JS_DISTANCE_NAT_STURGES_WINSORISED].value > 0.6
    assert made[Statistic.WASSERSTEIN_PER_STD_WINSORISED].value == pytest.approx(3, abs=0.1)
    assert made[Statistic.MEAN_SHIFT_WINSORISED].value == pytest.approx(3, abs=0.1)

    calm = np.append(rng(9).normal(size=4_999), 1e4)
    made = measure(window(numeric(reference), calm))
    assert evidently.wasserstein(reference, calm) > 1.9
    assert made[Statistic.WASSERSTEIN_PER_STD].value == pytest.approx(
        evidently.wasserstein(reference, calm), rel=0.01
    )
    assert made[Statistic.WASSERSTEIN_PER_STD_WINSORISED].value < 0.05
    assert made[Statistic.OUT_OF_RANGE_SHARE].value == pytest.approx(1 / 5_000, abs=2 / 5_000)
