"""Mean and spread of values that were seen in parts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from edgeflow_agent.drift.bins import Floats, Ints


class Moments(NamedTuple):
    """Of `n` values: their mean, and the sum `m2` of the squared distances from it."""

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @classmethod
    def of(cls, values: Floats) -> Moments:
        """The moments of finite values."""
        if values.size == 0:
            return cls()
        low, high = float(values.min()), float(values.max())
        # Rounding must not bring the mean of equal values out of their range.
        mean = min(max(float(values.mean()), low), high)
        return cls(values.size, mean, float(((values - mean) ** 2).sum()))

    @property
    def std(self) -> float:
        """The standard deviation with ddof 0; 0 without values."""
        return math.sqrt(self.m2 / self.n) if self.n else 0.0

    def merge(self, other: Moments) -> Moments:
        """The moments of both together (Chan, Golub and LeVeque 1979)."""
        if not self.n or not other.n:
            return other if not self.n else self
        n = self.n + other.n
        share = other.n / n
        apart = other.mean - self.mean
        m2 = self.m2 + other.m2 + apart * apart * self.n * share
        return Moments(n, self.mean + apart * share, m2)


def together(n: Ints, mean: Floats, m2: Floats, rows: Ints, count: int) -> tuple[Floats, Floats]:
    """Means and `m2` of many parts, put together by the row (below `count`) that each belongs to; 0 where a
    row has no values."""
    used = n > 0
    # Distances are taken from one of the means: so what is alone in its row stays as it is.
    base = np.zeros(count)
    base[rows[used]] = mean[used]
    total = np.maximum(np.bincount(rows, weights=n, minlength=count), 1.0)
    apart = np.where(used, mean - base[rows], 0.0)
    centre = np.bincount(rows, weights=n * apart, minlength=count) / total
    apart -= np.where(used, centre[rows], 0.0)
    parts = np.where(used, m2 + n * apart * apart, 0.0)
    spread: Floats = np.bincount(rows, weights=parts, minlength=count).astype(np.float64)
    return base + centre, spread
