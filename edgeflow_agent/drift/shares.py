"""Shares of windows that distances do not see: what is missing, infinite, out of range or unseen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeflow_agent.drift.bins import Floats, Ints
from edgeflow_agent.drift.measures import Statistic
from edgeflow_agent.drift.probability import more_often_tail
from edgeflow_agent.drift.stack import NumericStack, Stack


@dataclass(frozen=True, eq=False)
class Share:
    """`count` of `n` values of each window, which has none of these where n is 0; `usual` of `usual_n` are
    what the baseline lets expect. `chance` gives how likely at least so many of n values are by chance,
    where the baseline has `usual`."""

    count: Ints
    n: Ints
    usual: int
    usual_n: int
    chance: Callable[[int, int, int, int], float]

    @property
    def values(self) -> Floats:
        """The share in each window; NaN where there are no values."""
        return np.where(self.n > 0, self.count / np.maximum(self.n, 1), math.nan)

    def tails(self, rows: Ints) -> Floats:
        """How likely at least as much as in each of these windows is by chance."""
        found = np.ones(rows.size)
        count, n = self.count[rows], self.n[rows]
        # What is as rare as ever is as likely as can be; most windows have nothing of the kind.
        more = (count > 0) & (count / np.maximum(n, 1) > self.usual / self.usual_n * (1 - 1e-9))
        for place in more.nonzero()[0].tolist():
            found[place] = self.chance(int(count[place]), int(n[place]), self.usual, self.usual_n)
        return found

    def limits(self, least: float, p: float, rows: Ints) -> Floats:
        """For these windows the share from which on it is at least `least` above the usual one, and less
        likely than p."""
        n = self.n[rows]
        begin = np.minimum(np.ceil((self.usual / self.usual_n + least) * n - 1e-9), n)
        found: Floats = begin / n
        for place in (self.count[rows] >= begin).nonzero()[0].tolist():
            found[place] = self._least_unlikely(int(begin[place]), int(n[place]), p) / n[place]
        return found

    def _least_unlikely(self, begin: int, n: int, p: float) -> int:
        low, high = max(begin, 1), n + 1
        while low < high:
            middle = (low + high) // 2
            unlikely = self.chance(middle, n, self.usual, self.usual_n) <= p
            low, high = (low, middle) if unlikely else (middle + 1, high)
        return low


def of(stack: Stack) -> dict[Statistic, Share]:
    """The shares of all windows. A baseline of no values has no shares."""
    feature = stack.feature
    found: dict[Statistic, Share] = {}
    if not feature.n:
        return found
    found[Statistic.MISSING_SHARE] = Share(
        stack.missing, stack.n, feature.missing, feature.n, more_often_tail
    )
    if not isinstance(stack, NumericStack):
        known = stack.feature.n - stack.feature.missing
        if known:
            usual = stack.feature.other + _singles(stack.feature.counts)
            found[Statistic.UNSEEN_SHARE] = Share(stack.other, stack.present, usual, known, more_often_tail)
        return found
    numeric, seen = stack.feature, stack.feature.distribution
    found[Statistic.NON_FINITE_SHARE] = Share(stack.inf, stack.n, numeric.inf, numeric.n, more_often_tail)
    if seen is None:
        return found
    outside = stack.quantiles[:, 0] + stack.quantiles[:, -1]
    found[Statistic.OUT_OF_RANGE_SHARE] = Share(outside, stack.finite, 0, seen.n, _outside)
    if seen.values.size:
        usual = _singles(seen.value_counts)
        found[Statistic.UNSEEN_SHARE] = Share(
            stack.values[:, -1], stack.finite, usual, seen.n, more_often_tail
        )
    return found


def _singles(counts: Ints) -> int:
    # What was seen once stands for what was not seen yet (Good and Turing): in a column of names of
    # users, new ones are no news.
    return int((counts == 1).sum())


def _outside(x: int, n: int, y: int, m: int) -> float:
    # The chance that the x outermost of all values fall into the window, for each way to part them over
    # both ends. It does not depend on how the values are distributed.
    return min((x + 1) * more_often_tail(x, n, y, m), 1.0)
