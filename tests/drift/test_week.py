"""A whole week of a large fleet, at full size and with the rules of a server: nobody is woken for nothing,
and what changes slowly is found where devices are judged together.

Windows are drawn as cells of the baseline's bins, from exactly the distribution that the baseline was drawn
from: half a million windows of thirty features would take hours otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from edgeflow_agent.drift import sketch, stack, verdict
from edgeflow_agent.drift.baseline import Distribution, Feature, Numeric
from edgeflow_agent.drift.bins import FINE_BINS, quantile_cell_count
from edgeflow_agent.drift.stack import CategoricalStack, NumericStack, Stack
from edgeflow_agent.drift.verdict import judge
from edgeflow_mlflow import config
from edgeflow_mlflow.domain import drift
from edgeflow_mlflow.domain.drift import Persistence
from tests.drift.conftest import categorical, numeric, window

Floats = npt.NDArray[np.float64]

SAMPLES = 500
# As many windows as fit into the processor's cache.
BLOCK = 250
POOL = 4_096
WORDS = 40
KINDS: dict[str, Callable[[np.random.Generator], Floats]] = {
    "normal": lambda rng: rng.normal(10, 2, size=POOL),
    "lognormal": lambda rng: rng.lognormal(size=POOL),
    "heavy tails": lambda rng: rng.standard_t(3, size=POOL),
    "counts": lambda rng: rng.poisson(3, size=POOL) * 1.0,
    "zeros": lambda rng: np.where(rng.random(POOL) < 0.7, 0, rng.exponential(size=POOL)),
    "flag": lambda rng: np.where(rng.random(POOL) < 0.03, 1.0, 0.0),
}


class Numbers:
    """A feature with one of 4,096 values, each as likely as any other."""

    def __init__(self, pool: Floats, samples: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._pool = pool
        self.feature: Numeric = numeric(rng.choice(pool, samples))
        seen = self.feature.distribution
        assert seen is not None
        self._seen: Distribution = seen
        fine, quantiles, values, points = sketch.cells_of(pool, seen)
        self._cells = {
            "fine": (fine, FINE_BINS),
            "quantiles": (quantiles, quantile_cell_count(seen.edges)),
            "values": (values, seen.values.size + 1 if seen.values.size else 0),
            "points": (points, 2 * seen.points.size + 1 if seen.points.size else 0),
        }

    def windows(self, count: int) -> Stack:
        """So many windows in which nothing has changed."""
        drawn = self._rng.integers(0, self._pool.size, size=(count, SAMPLES))
        values = self._pool[drawn]
        inner = values.clip(self._seen.fine_low, self._seen.fine_high)
        below, above = self._seen.fine_low - values, values - self._seen.fine_high
        n, nothing = np.full(count, SAMPLES), np.zeros(count, dtype=np.int64)
        counts = {name: _counted(cells[drawn], size) if size else np.zeros((count, 0), dtype=np.int64)
                  for name, (cells, size) in self._cells.items()}  # fmt: skip
        return NumericStack(
            feature=self.feature,
            n=n,
            missing=nothing,
            inf=nothing,
            min=values.min(axis=1),
            max=values.max(axis=1),
            mean=values.mean(axis=1),
            m2=values.var(axis=1) * SAMPLES,
            inner_mean=inner.mean(axis=1),
            inner_m2=inner.var(axis=1) * SAMPLES,
            below=(below > 0).sum(axis=1),
            below_excess=below.clip(0).sum(axis=1),
            above=(above > 0).sum(axis=1),
            above_excess=above.clip(0).sum(axis=1),
            fine=counts["fine"],
            quantiles=counts["quantiles"],
            values=counts["values"],
            points=counts["points"],
        )


class Words:
    """A feature with one of forty words, some of them rare."""

    def __init__(self, samples: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._shares = rng.dirichlet(np.full(WORDS, 0.5))
        drawn = rng.choice(WORDS, samples, p=self._shares)
        self.feature: Feature = categorical([f"word {index}" for index in drawn])
        assert not isinstance(self.feature, Numeric)
        self._known = self.feature
        self._order = [int(name.split()[1]) for name in self._known.categories]

    def windows(self, count: int) -> Stack:
        """So many windows in which nothing has changed."""
        drawn = self._rng.multinomial(SAMPLES, self._shares, size=count)
        listed = drawn[:, self._order]
        return CategoricalStack(
            feature=self._known,
            n=np.full(count, SAMPLES),
            missing=np.zeros(count, dtype=np.int64),
            other=SAMPLES - listed.sum(axis=1),
            counts=listed,
        )


def _counted(cells: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    rows = np.arange(len(cells))[:, None]
    counts = np.bincount((cells + rows * size).ravel(), minlength=len(cells) * size)
    return counts.reshape(len(cells), size)


class Alarms:
    """Whether each of some series has an alarm, by the rule of the server: `k` of the newest `n` evaluations
    have drifted and stood out among all of the hour."""

    def __init__(self, shape: tuple[int, ...], rule: Persistence) -> None:
        self._rule = rule
        self._bad: list[npt.NDArray[np.bool_]] = []
        self._now = np.zeros(shape, dtype=np.bool_)
        self.began = 0

    def add(self, drifted: npt.NDArray[np.bool_], p_values: Floats) -> None:
        """The evaluations of an hour. Counts alerts that begin: of all features of a device there is one."""
        self._bad.append(drifted & (p_values <= drift.outstanding(p_values.ravel().tolist())))
        del self._bad[: -self._rule.n]
        now = np.sum(self._bad, axis=0) >= self._rule.k
        self.began += int((now.any(axis=0) & ~self._now.any(axis=0)).sum())
        self._now = now


def quiet(devices: int, hours: int, samples: int, seed: int = 2026) -> tuple[int, int, float]:
    """How many alerts on single devices, and on all of them together, begin while nothing changes; and which
    share of the verdicts was a drift."""
    rng = np.random.default_rng(seed)
    features: list[Numbers | Words] = [
        Numbers(draw(rng), samples, rng) for draw in KINDS.values() for _ in range(4)
    ]
    features += [Words(samples, rng) for _ in range(30 - len(features))]
    settings = config.load(environment={}, flags={})
    rule = Persistence.of(settings["drift.k"], settings["drift.n"])
    single, together = Alarms((len(features), devices), rule), Alarms((len(features), 1), rule)
    drifted = 0
    for _ in range(hours):
        bad = np.zeros((len(features), devices), dtype=np.bool_)
        p_values = np.zeros((len(features), devices))
        pooled = [np.zeros((len(features), 1), dtype=np.bool_), np.zeros((len(features), 1))]
        for place, feature in enumerate(features):
            totals = []
            for start in range(0, devices, BLOCK):
                rows = slice(start, min(start + BLOCK, devices))
                made = feature.windows(rows.stop - rows.start)
                found = verdict.assess(made)
                bad[place, rows], p_values[place, rows] = found.drifts, found.p_values
                totals.append(made.summed())
            total = totals[0]
            for more in totals[1:]:
                total = stack.joined(total, more).summed()
            found = verdict.assess(total)
            pooled[0][place], pooled[1][place] = found.drifts, found.p_values
        assert not np.isnan(p_values).any()
        single.add(bad, p_values)
        together.add(pooled[0], pooled[1])
        drifted += int(bad.sum())
    return single.began, together.began, drifted / (devices * hours * len(features))


def test_windows_are_drawn_as_they_are_counted() -> None:
    rng = np.random.default_rng(1)
    for draw in KINDS.values():
        drawn = Numbers(draw(rng), 1_000, np.random.default_rng(5))
        made = drawn.windows(2)
        again = np.random.default_rng(5)
        again.choice(drawn._pool, 1_000)
        values = drawn._pool[again.integers(0, POOL, size=(2, SAMPLES))]
        for row in range(2):
            assert isinstance(made, NumericStack)
            expected, found = judge(window(drawn.feature, values[row])), judge(made.sketch(row))
            assert [item.text for item in found.signals] == [item.text for item in expected.signals]


@pytest.mark.parametrize("samples", [1_000, 20_000])
def test_a_day_of_some_devices_is_quiet(samples: int) -> None:
    assert quiet(20, 24, samples)[:2] == (0, 0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("samples", [1_000, 20_000])
def test_a_week_of_a_thousand_devices_has_few_false_alarms(samples: int) -> None:
    single, together, share = quiet(1_000, 24 * 7, samples)
    assert single + together <= 10
    # Verdicts that are beyond their limits by chance, and do not stand out among all others.
    assert share < 0.002


def test_a_slow_drift_over_a_day_is_found_in_the_pool() -> None:
    # A fifth of a standard deviation until midnight: what a device alone sees late, if at all.
    rng = np.random.default_rng(4)
    feature = numeric(rng.normal(10, 2, size=5_000))
    devices = 50
    rule = Persistence.of(2, 3)
    single, together = Alarms((1, devices), rule), Alarms((1, 1), rule)
    began = []
    for hour in range(1, 25):
        values = rng.normal(10 + 2 * 0.2 * hour / 24, 2, size=(devices, SAMPLES))
        windows = stack.of([window(feature, row) for row in values])
        for alarms, found in ((single, windows), (together, windows.summed())):
            judged = verdict.assess(found)
            alarms.add(judged.drifts[None], judged.p_values[None])
        began.append((together.began, single.began))
    # Soon after the values have moved as far as the limit of the distance, in two of three hours.
    hours = [hour for hour, (pooled, _) in enumerate(began, start=1) if pooled]
    assert 8 <= hours[0] <= 16
    assert began[hours[0] - 1] == (1, 0)
