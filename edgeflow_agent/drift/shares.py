"""Shares of a window that distances do not see: what is missing, infinite, out of range or unseen."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from edgeflow_agent.drift.bins import Ints
from edgeflow_agent.drift.measures import Statistic
from edgeflow_agent.drift.probability import more_often_tail
from edgeflow_agent.drift.sketch import NumericSketch, Sketch


@dataclasses.dataclass(frozen=True)
class Share:
    """`count` of `n` values; `usual` of `usual_n` are what the baseline lets expect. `tail` gives how likely
    at least so many are by chance."""

    count: int
    n: int
    usual: int
    usual_n: int
    tail: Callable[[int], float]

    @property
    def value(self) -> float:
        """The share in this window."""
        return self.count / self.n

    def limit(self, least: float, p: float) -> float:
        """The share from which on it is at least `least` above the usual one, and less likely than p."""
        begin = min(math.ceil((self.usual / self.usual_n + least) * self.n - 1e-9), self.n)
        if self.count < begin:
            return begin / self.n
        low, high = max(begin, 1), self.n + 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.tail(middle) <= p else (middle + 1, high)
        return low / self.n


def of(sketch: Sketch) -> dict[Statistic, Share]:
    """The shares of a window. A window of no values, and a baseline of none, have no shares."""
    feature = sketch.feature
    found: dict[Statistic, Share] = {}
    if not sketch.n or not feature.n:
        return found
    found[Statistic.MISSING_SHARE] = _counted(sketch.missing, sketch.n, feature.missing, feature.n)
    if not isinstance(sketch, NumericSketch):
        known = sketch.feature.n - sketch.feature.missing
        if sketch.present and known:
            usual = sketch.feature.other + _singles(sketch.feature.counts)
            found[Statistic.UNSEEN_SHARE] = _counted(sketch.other, sketch.present, usual, known)
        return found
    numeric, seen = sketch.feature, sketch.feature.distribution
    found[Statistic.NON_FINITE_SHARE] = _counted(sketch.inf, sketch.n, numeric.inf, numeric.n)
    if seen is None or not sketch.finite:
        return found
    cells = sketch.quantiles.dense()
    found[Statistic.OUT_OF_RANGE_SHARE] = _outside(int(cells[0] + cells[-1]), sketch.finite, seen.n)
    if seen.values.size:
        other = int(sketch.values.dense()[-1])
        found[Statistic.UNSEEN_SHARE] = _counted(other, sketch.finite, _singles(seen.value_counts), seen.n)
    return found


def _singles(counts: Ints) -> int:
    # What was seen once stands for what was not seen yet (Good and Turing): in a column of names of
    # users, new ones are no news.
    return int((counts == 1).sum())


def _counted(count: int, n: int, usual: int, usual_n: int) -> Share:
    return Share(count, n, usual, usual_n, lambda x: more_often_tail(x, n, usual, usual_n))


def _outside(count: int, n: int, usual_n: int) -> Share:
    # The chance that the x outermost of all values fall into the window, for each way to part them over
    # both ends. It does not depend on how the values are distributed.
    return Share(count, n, 0, usual_n, lambda x: min((x + 1) * more_often_tail(x, n, 0, usual_n), 1.0))
