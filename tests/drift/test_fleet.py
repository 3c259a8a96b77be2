"""A fleet over a week, scaled down: silence while nothing changes, and what changes is found.

Windows are drawn as counts over the values that a feature can have, from exactly the distribution that its
baseline was drawn from.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from edgeflow_agent.drift import alarms
from edgeflow_agent.drift.verdict import Status, Verdict, judge
from tests.drift.conftest import categorical, numeric, window, words

RNG = np.random.default_rng(2026)
SAMPLES = 500
Q, K, N = 0.05, 3, 5

# The values a feature can have, each as likely as any other.
POOLS: dict[str, npt.NDArray[np.float64]] = {
    "normal": RNG.normal(10, 2, size=4_096),
    "lognormal": RNG.lognormal(size=4_096),
    "heavy tails": RNG.standard_t(3, size=4_096),
    "counts": RNG.poisson(3, size=4_096) * 1.0,
    "zeros": np.where(RNG.random(4_096) < 0.7, 0, RNG.exponential(size=4_096)),
    "flag": np.where(RNG.random(4_096) < 0.03, 1.0, 0.0),
}
WORDS = [f"word {index}" for index in range(40)]
SHARES = RNG.dirichlet(np.full(40, 0.5))
SIZES = {"small": 1_000, "large": 20_000}


def drawn(pool: npt.NDArray[np.float64], n: int, windows: int) -> Iterator[npt.NDArray[np.float64]]:
    for counts in RNG.multinomial(n, np.full(pool.size, 1 / pool.size), size=windows):
        yield np.repeat(pool, counts)


def drawn_words(n: int, windows: int) -> Iterator[list[str]]:
    for counts in RNG.multinomial(n, SHARES, size=windows):
        yield [word for word, count in zip(WORDS, counts, strict=True) for _ in range(count)]


@pytest.mark.parametrize("size", SIZES)
def test_a_week_in_which_nothing_changes(size: str) -> None:
    devices, hours = 6, 40
    series: list[list[Verdict]] = []
    for pool in POOLS.values():
        feature = numeric(next(drawn(pool, SIZES[size], 1)))
        series.extend(
            [judge(window(feature, values)) for values in drawn(pool, SAMPLES, hours)] for _ in range(devices)
        )
    known = categorical(next(drawn_words(SIZES[size], 1)))
    series.extend(
        [judge(words(known, values)) for values in drawn_words(SAMPLES, hours)] for _ in range(devices)
    )

    verdicts = [verdict for one in series for verdict in one]
    assert {verdict.status for verdict in verdicts} <= {Status.OK, Status.DRIFT}
    p_values = np.array([verdict.p_value for verdict in verdicts])
    assert (p_values <= 0.01).mean() <= 0.02
    assert (p_values <= 1e-4).mean() <= 0.001
    assert np.mean([verdict.status is Status.DRIFT for verdict in verdicts]) <= 0.001

    fired = stand_out(series)
    assert fired.mean() <= 0.001
    assert not any(alarms.holds(row[: hour + 1].tolist(), K, N) for row in fired for hour in range(hours))


def stand_out(series: list[list[Verdict]]) -> npt.NDArray[np.bool_]:
    """What a server makes of it: for each hour those of all verdicts that stand out and drift."""
    hours = [
        [
            stands_out and verdict.status is Status.DRIFT
            for stands_out, verdict in zip(
                alarms.benjamini_hochberg([verdict.p_value or 0 for verdict in hour], Q), hour, strict=True
            )
        ]
        for hour in zip(*series, strict=True)
    ]
    return np.array(hours).T


@pytest.mark.parametrize("name", ["normal", "lognormal", "heavy tails", "counts"])
def test_one_changed_feature_of_one_device_is_found(name: str) -> None:
    pool = POOLS[name]
    feature = numeric(next(drawn(pool, 5_000, 1)))
    changed = [judge(window(feature, values + pool.std())) for values in drawn(pool, SAMPLES, N)]
    # As many as a thousand devices with thirty features have in an hour: each p-value is as small as chance
    # makes it.
    others = RNG.random(30_000 - 1).tolist()
    found = [
        alarms.benjamini_hochberg([verdict.p_value or 0, *others], Q)[0] and verdict.status is Status.DRIFT
        for verdict in changed
    ]
    assert all(found)
    assert alarms.holds(found, K, N)
