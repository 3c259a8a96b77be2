"""How many values lie below which place: all that a sketch knows of the order of its values.

Counts over other edges are read between these knots, see `bins.rebinned`.
"""

from __future__ import annotations

import numpy as np

from edgeflow_agent.drift.baseline import Distribution
from edgeflow_agent.drift.bins import Floats, fine_edges
from edgeflow_agent.drift.sketch import NumericSketch, Tail

Knots = tuple[Floats, Floats]


def of_reference(seen: Distribution) -> Knots:
    """The places, sorted, and the numbers of values below them: of a baseline."""
    places = np.concatenate((fine_edges(seen.fine_low, seen.fine_high), seen.edges[:-1]))
    quantiles = np.concatenate(([0], np.cumsum(seen.counts)[:-1]))
    below = np.concatenate(([0], np.cumsum(seen.fine), quantiles))
    return _sorted(places, below, seen.min, seen.max, seen.n)


def of_window(sketch: NumericSketch, seen: Distribution, *, winsorised: bool) -> Knots:
    """The same of a window, with all its values in the range of the fine bins where they are winsorised."""
    n, under, over = sketch.finite, sketch.below, sketch.above
    low = min(max(sketch.min, seen.fine_low), seen.fine_high)
    high = max(min(sketch.max, seen.fine_high), seen.fine_low)
    places = np.concatenate((fine_edges(seen.fine_low, seen.fine_high), seen.edges[:-1], seen.points))
    fine = np.cumsum(sketch.fine.dense())
    quantiles = np.cumsum(sketch.quantiles.dense())[: seen.edges.size - 1]
    points = np.cumsum(sketch.points.dense())[:-1:2]
    if winsorised or not (under.count or over.count):
        return _sorted(places, np.concatenate(([0], fine, quantiles, points)), low, high, n)
    below = np.concatenate(([under.count], fine[:-1], [n - over.count], quantiles, points))
    order = np.lexsort((below, places))
    parts = [(places[order], np.maximum.accumulate(below[order]))]
    if under.count:
        far, counts = _tail(under, seen.fine_low - sketch.max, seen.fine_low - sketch.min)
        parts.insert(0, ((seen.fine_low - far)[::-1], (under.count - counts)[::-1]))
    if over.count:
        far, counts = _tail(over, sketch.min - seen.fine_high, sketch.max - seen.fine_high)
        parts.append((seen.fine_high + far, n - over.count + counts))
    joined, counted = (np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True))
    return joined, counted


def _tail(tail: Tail, nearest: float, furthest: float) -> Knots:
    # Distances from the end of the bins, and how many values lie within them. One value is exactly at the
    # furthest; the others, of which the sum is known, lie evenly from the end of the bins on, or from the
    # nearest value where all of the window lies beyond.
    others = tail.count - 1
    begin = max(nearest, 0.0)
    middle = max(tail.excess - furthest, 0.0) / others if others else begin
    reach = min(max(2 * middle - begin, begin), furthest)
    return np.array([begin, reach, furthest, furthest]), np.array([0.0, others, others, tail.count])


def _sorted(places: Floats, below: Floats, low: float, high: float, n: int) -> Knots:
    # All values lie between low and high, and one exactly at each of them.
    places = np.concatenate((np.clip(places, low, high), [low, high]))
    below = np.concatenate((below, [1, n - 1])).astype(np.float64)
    order = np.lexsort((below, places))
    # A value within rounding of an edge may be on either side of it.
    return places[order], np.maximum.accumulate(below[order])
