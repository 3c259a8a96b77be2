"""How long to wait before trying again."""

from __future__ import annotations


def delay(attempt: int, random: float, *, base: float = 1.0, ceiling: float = 60.0) -> float:
    """Seconds to wait after the failed attempt number `attempt` (from 1): exponential with full jitter.

    `random` is a number in [0, 1) that the caller draws. A tenth of the base is always waited, so that an
    unlucky draw never becomes a busy loop.
    """
    # Past 2**30 the ceiling has long been reached; the bound keeps the power from growing without end.
    span: float = min(ceiling, base * 2.0 ** min(max(attempt, 1) - 1, 30))
    return base / 10 + random * max(span - base / 10, 0.0)
