"""What a feature was in training and is now, side by side and ready to be drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeflow_agent.drift.bins import FINE_BINS, Ints, fine_edges
from edgeflow_agent.drift.sketch import NumericSketch, Sketch

BARS = 64
_MOST_WORDS = 20
OTHERS = "others"


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Shares of the baseline and of the live values: between `edges` (one more than there are bars), or of
    the values or words in `labels`."""

    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    baseline: tuple[float, ...] = ()
    live: tuple[float, ...] = ()


def of(sketch: Sketch) -> Histogram:
    """The bars of one feature; none when one side has nothing to draw."""
    if not isinstance(sketch, NumericSketch):
        feature = sketch.feature
        return _labelled(
            feature.categories, feature.counts, feature.other, sketch.counts.dense(), sketch.other
        )
    seen = sketch.feature.distribution
    if seen is None:
        return Histogram()
    if seen.values.size:
        live = sketch.values.dense()
        names = tuple(f"{value:g}" for value in seen.values)
        return _labelled(names, seen.value_counts, 0, live[:-1], int(live[-1]))
    # No wider than what there is to see; each bar is a power of two of fine bins.
    fine = sketch.fine.dense()
    used = np.flatnonzero(seen.fine + fine)
    begin, end = int(used[0]), int(used[-1]) + 1
    width = 1
    while (end - begin) / width > BARS:
        width *= 2
    begin -= begin % width
    end = min(-(-end // width) * width, FINE_BINS)
    edges = fine_edges(seen.fine_low, seen.fine_high)[begin : end + 1 : width]
    return Histogram(
        edges=tuple(edges.tolist()),
        baseline=_shares(seen.fine[begin:end].reshape(-1, width).sum(axis=1)),
        live=_shares(fine[begin:end].reshape(-1, width).sum(axis=1)),
    )


def _labelled(names: tuple[str, ...], before: Ints, rest: int, now: Ints, other: int) -> Histogram:
    """The commonest, and all others together."""
    order = np.argsort(-before, kind="stable")[:_MOST_WORDS]
    if len(names) <= _MOST_WORDS:
        order = np.arange(len(names))
    left, right = before[order], now[order]
    rest += int(before.sum() - left.sum())
    other += int(now.sum() - right.sum())
    return Histogram(
        labels=(*(names[place] for place in order), OTHERS),
        baseline=_shares(np.append(left, rest)),
        live=_shares(np.append(right, other)),
    )


def _shares(counts: Ints) -> tuple[float, ...]:
    total = int(counts.sum())
    return tuple((counts / max(total, 1)).tolist())
