"""What many verdicts are together: a fleet has tens of thousands an hour, and some look bad by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence


def benjamini_hochberg(p_values: Sequence[float], q: float) -> list[bool]:
    """Which of the p-values stand out, so that of those no more than the share q do by chance (on average;
    Benjamini and Hochberg 1995). All of one decision belong into one call. NaN never stands out."""
    if not 0 < q < 1:
        raise ValueError("q must lie between 0 and 1")
    known = [1.0 if math.isnan(p) else p for p in p_values]
    limit = -1.0
    for rank, p in enumerate(sorted(known), start=1):
        if p <= q * rank / len(known):
            limit = p
    return [p <= limit and not math.isnan(given) for p, given in zip(known, p_values, strict=True)]


def holds(history: Sequence[bool], k: int, n: int) -> bool:
    """Whether at least k of the last n windows were bad; `history` ends with the latest. Windows that are
    not there yet were good ones."""
    if not 1 <= k <= n:
        raise ValueError("k must lie between 1 and n")
    return sum(history[-n:]) >= k
