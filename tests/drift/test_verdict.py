"""Verdicts: what drifts, what does not, and what cannot be said."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeflow_agent.drift.measures import Statistic
from edgeflow_agent.drift.verdict import Signal, Status, Thresholds, Verdict, judge
from tests.drift.conftest import categorical, numeric, window, words

RNG = np.random.default_rng(11)
NORMAL = numeric(RNG.normal(10, 2, size=5_000))
FRUIT = categorical(RNG.choice(["apple", "pear", "fig"], 3_000, p=[0.6, 0.39, 0.01]))


def signal(verdict: Verdict, statistic: Statistic) -> Signal:
    (found,) = [item for item in verdict.signals if item.statistic is statistic]
    return found


def drifting(verdict: Verdict) -> set[Statistic]:
    return {item.statistic for item in verdict.signals if item.status is Status.DRIFT}


def test_nothing_new() -> None:
    verdict = judge(window(NORMAL, RNG.normal(10, 2, size=600)))
    assert verdict.status is Status.OK
    assert {item.status for item in verdict.signals} == {Status.OK}
    assert verdict.p_value is not None
    assert verdict.p_value > 0.001
    assert verdict.feature == "x"


def test_a_shift_is_said_in_words() -> None:
    verdict = judge(window(NORMAL, RNG.normal(12, 2, size=500)))
    assert verdict.status is Status.DRIFT
    assert verdict.p_value is not None
    assert verdict.p_value < 1e-30
    found = signal(verdict, Statistic.MEAN_SHIFT_WINSORISED)
    assert found.value == pytest.approx(1, abs=0.15)
    assert found.text.startswith("the mean with absurd readings moved into range is ")
    assert found.text.endswith(
        "standard deviations above the baseline's in 500 values, beyond the limit of 0.25"
    )
    assert {Statistic.PSI_GROUPS, Statistic.WASSERSTEIN_PER_STD_WINSORISED} <= drifting(verdict)
    down = judge(window(NORMAL, RNG.normal(8, 2, size=500)))
    assert "below the baseline's" in signal(down, Statistic.MEAN_SHIFT_WINSORISED).text


def test_a_narrower_spread_is_a_drift_too() -> None:
    for scale in (1, 4):
        verdict = judge(window(NORMAL, RNG.normal(10, scale, size=500)))
        assert Statistic.STD_RATIO_WINSORISED in drifting(verdict)
        assert Statistic.MEAN_SHIFT_WINSORISED not in drifting(verdict)


def test_small_windows_are_not_judged() -> None:
    # Trap 2: at a limit of 0.1 a window of 50 always drifts.
    verdict = judge(window(NORMAL, RNG.normal(10, 2, size=50)))
    assert verdict.status is Status.INSUFFICIENT_DATA
    assert {item.status for item in verdict.signals} == {Status.INSUFFICIENT_DATA}
    assert verdict.p_value is None
    assert "the window has 50 such values, 500 are needed" in verdict.signals[0].text
    assert judge(window(NORMAL)).status is Status.INSUFFICIENT_DATA


def test_a_small_baseline_judges_nothing() -> None:
    verdict = judge(window(numeric(RNG.normal(size=20)), RNG.normal(5, 1, size=1_000)))
    assert verdict.status is Status.INSUFFICIENT_DATA
    assert "the baseline has 20 such values, 100 are needed: log more samples" in verdict.signals[0].text


def test_a_window_without_a_number_still_misses_them() -> None:
    # Trap 6: what is missing is invisible to distances.
    verdict = judge(window(NORMAL, [None] * 600))
    assert verdict.status is Status.DRIFT
    found = signal(verdict, Statistic.MISSING_SHARE)
    assert found.text == (
        "600 of 600 values (100.00%) are missing, 0.00% may be expected: beyond the limit of 2.00%"
    )
    some = judge(window(NORMAL, np.where(RNG.random(1_000) < 0.1, np.nan, RNG.normal(10, 2, size=1_000))))
    assert drifting(some) == {Statistic.MISSING_SHARE}


def test_as_much_missing_as_ever_is_no_drift() -> None:
    holes = numeric(np.where(RNG.random(3_000) < 0.3, np.nan, RNG.normal(size=3_000)))
    verdict = judge(window(holes, np.where(RNG.random(1_000) < 0.3, np.nan, RNG.normal(size=1_000))))
    assert verdict.status is Status.OK


def test_broken_and_impossible_readings_are_their_own_signals() -> None:
    values = RNG.normal(10, 2, size=1_000)
    assert drifting(judge(window(NORMAL, values, [math.inf] * 30))) == {Statistic.NON_FINITE_SHARE}
    assert drifting(judge(window(NORMAL, values, [1e9] * 3))) == set()
    found = judge(window(NORMAL, values, [20.0] * 40))
    assert Statistic.OUT_OF_RANGE_SHARE in drifting(found)
    assert "outside the range of the baseline" in signal(found, Statistic.OUT_OF_RANGE_SHARE).text


def test_one_absurd_reading_neither_hides_nor_makes_drift() -> None:
    # Trap 1.
    assert judge(window(NORMAL, RNG.normal(10, 2, size=2_000), [1e9])).status is Status.OK
    hidden = judge(window(NORMAL, RNG.normal(16, 2, size=2_000), [1e9, -1e50]))
    assert {Statistic.PSI_GROUPS, Statistic.MEAN_SHIFT_WINSORISED} <= drifting(hidden)


def test_words() -> None:
    usual = ["apple"] * 600 + ["pear"] * 390 + ["fig"] * 10
    assert judge(words(FRUIT, usual)).status is Status.OK
    more = judge(words(FRUIT, ["apple"] * 300 + ["pear"] * 190 + ["fig"] * 510))
    assert Statistic.TOTAL_VARIATION_CATEGORIES in drifting(more)
    new = judge(words(FRUIT, usual, ["kiwi"] * 40))
    assert drifting(new) == {Statistic.UNSEEN_SHARE}
    assert (
        "40 of 1040 values (3.85%) are not known to the baseline" in signal(new, Statistic.UNSEEN_SHARE).text
    )
    assert judge(words(FRUIT, usual, ["kiwi"])).status is Status.OK


def test_names_that_are_always_new_are_no_news() -> None:
    users = categorical([f"user {index}" for index in range(2_000)])
    assert judge(words(users, [f"user {index}" for index in range(5_000, 6_000)])).status is Status.OK


def test_a_rare_word_that_becomes_common_is_found() -> None:
    # One of a hundred is too rare for a group of its own.
    states = categorical(["ok"] * 990 + ["error"] * 10)
    assert judge(words(states, ["ok"] * 495 + ["error"] * 5)).status is Status.OK
    assert judge(words(states, ["ok"] * 250 + ["error"] * 250)).status is Status.DRIFT
    flag = numeric([0.0] * 990 + [1.0] * 10)
    assert judge(window(flag, [0.0] * 250 + [1.0] * 250)).status is Status.DRIFT


def test_limits_are_the_users() -> None:
    made = window(NORMAL, RNG.normal(12, 2, size=500))
    strict = Thresholds(limits={Statistic.PSI_STURGES: 0.1, Statistic.KS_DISTANCE: 0.9})
    verdict = judge(made, strict)
    assert [item.statistic for item in verdict.signals] == [Statistic.PSI_STURGES, Statistic.KS_DISTANCE]
    assert drifting(verdict) == {Statistic.PSI_STURGES}
    assert signal(verdict, Statistic.PSI_STURGES).approx
    wild = judge(words(FRUIT, ["fig"] * 600), Thresholds(limits={Statistic.CHI_SQUARE_P_CATEGORIES: 0.05}))
    assert drifting(wild) == {Statistic.CHI_SQUARE_P_CATEGORIES}
    assert judge(window(NORMAL, [10.0] * 30), Thresholds(min_samples=20)).status is Status.DRIFT
    with pytest.raises(ValueError, match="chance"):
        Thresholds(chance=0)
    with pytest.raises(ValueError, match="min_samples"):
        Thresholds(min_samples=0)


def test_the_limit_of_a_small_window_is_higher() -> None:
    thresholds = Thresholds(min_samples=50, min_reference=50)
    limits = [
        signal(judge(window(NORMAL, RNG.normal(10, 2, size=n)), thresholds), Statistic.PSI_GROUPS).threshold
        for n in (50, 500, 5_000)
    ]
    assert limits[0] > limits[1] >= limits[2] == 0.1
    few = numeric(RNG.normal(size=100))
    huge = judge(window(few, RNG.normal(size=50_000)), thresholds)
    assert signal(huge, Statistic.PSI_GROUPS).threshold > 0.1


def test_every_statistic_has_its_words() -> None:
    every = Thresholds(limits=dict.fromkeys(Statistic, 0.5))
    few = numeric(RNG.poisson(1, size=3_000))
    seen: set[Statistic] = set()
    made: list[Any] = [
        window(NORMAL, RNG.normal(10, 2, 600)), window(few, RNG.poisson(1, 600)), words(FRUIT, ["fig"] * 600),
    ]  # fmt: skip
    for item in made:
        verdict = judge(item, every)
        seen |= {found.statistic for found in verdict.signals}
        assert len({found.text for found in verdict.signals}) == len(verdict.signals)
        assert all(math.isfinite(found.value) for found in verdict.signals)
        assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
    assert seen == set(Statistic)


def test_thresholds_are_a_document() -> None:
    given = msgspec.json.decode(b'{"limits": {"psi_sturges": 0.2}, "min_samples": 50}', type=Thresholds)
    assert given == Thresholds(limits={Statistic.PSI_STURGES: 0.2}, min_samples=50)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"limits": {"psy": 0.2}}', type=Thresholds)
