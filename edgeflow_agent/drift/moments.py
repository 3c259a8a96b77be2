"""Mean and spread of values that were seen in parts."""

from __future__ import annotations

import math
from typing import NamedTuple

from edgeflow_agent.drift.bins import Floats


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
