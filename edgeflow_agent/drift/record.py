"""A sketch on the wire, and back from a device that nobody vouches for.

What a device says about its window is checked against itself and against the baseline before anything is
computed from it: afterwards every sum of counts is the number of values, and every number is finite.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.drift.baseline import LARGEST, ROUNDING, Categorical, Distribution, Feature, Numeric
from edgeflow_agent.drift.bins import Ints
from edgeflow_agent.drift.counters import Counters
from edgeflow_agent.drift.moments import Moments
from edgeflow_agent.drift.sketch import CategoricalSketch, NumericSketch, Sketch, Tail, cells_of
from edgeflow_agent.wire.sketches import (
    NOTHING,
    CategoricalRecord,
    NumericRecord,
    SketchRecord,
    Sparse,
)

MAX_COUNT = 2**53


def to_record(sketch: Sketch) -> SketchRecord:
    """The record of a window's sketch."""
    if isinstance(sketch, CategoricalSketch):
        return CategoricalRecord(
            name=sketch.feature.name,
            n=sketch.n,
            missing=sketch.missing,
            other=sketch.other,
            counts=_sparse(sketch.counts),
        )
    head = NumericRecord(name=sketch.feature.name, n=sketch.n, missing=sketch.missing, inf=sketch.inf)
    if sketch.finite == 0:
        return head
    moved = sketch.below.count or sketch.above.count
    return msgspec.structs.replace(
        head,
        min=sketch.min,
        max=sketch.max,
        mean=sketch.moments.mean,
        m2=sketch.moments.m2,
        inner_mean=sketch.inner.mean if moved else None,
        inner_m2=sketch.inner.m2 if moved else None,
        below=sketch.below.count,
        below_excess=sketch.below.excess,
        above=sketch.above.count,
        above_excess=sketch.above.excess,
        fine=_sparse(sketch.fine),
        quantiles=_sparse(sketch.quantiles),
        values=_sparse(sketch.values),
        points=_sparse(sketch.points),
    )


def from_record(feature: Feature, record: SketchRecord) -> Sketch:
    """The sketch of a record, against this feature of the baseline. Raise ContractError when the record is
    of another feature or contradicts itself."""
    try:
        _require(record.name == feature.name, f"it is of {record.name[:100]!r}")
        if isinstance(feature, Numeric):
            if isinstance(record, NumericRecord):
                return _numeric(feature, record)
            raise ValueError("it is of words, and the baseline has numbers")
        if isinstance(record, CategoricalRecord):
            return _categorical(feature, record)
        raise ValueError("it is of numbers, and the baseline has words")
    except ValueError as error:
        raise errors.ContractError(
            f"the window of {feature.name[:100]!r} is refused: {error}", reason="document"
        ) from error


def _categorical(feature: Categorical, record: CategoricalRecord) -> CategoricalSketch:
    _in_range(record.n, record.missing, record.other)
    present = record.n - record.missing
    _require(0 <= record.other <= present, "it has more missing and other values than values")
    sketch = CategoricalSketch(feature)
    sketch.n, sketch.missing, sketch.other = record.n, record.missing, record.other
    sketch.counts.add(_dense(record.counts, sketch.counts.size, present - record.other, "category"))
    return sketch


def _numeric(feature: Numeric, record: NumericRecord) -> NumericSketch:
    _in_range(record.n, record.missing, record.inf, record.below, record.above)
    sketch = NumericSketch(feature)
    sketch.n, sketch.missing, sketch.inf = record.n, record.missing, record.inf
    finite, seen = sketch.finite, feature.distribution
    _require(finite >= 0, "it has more missing and infinite values than values")
    for part, sparse, what in (
        (sketch.fine, record.fine, "fine"),
        (sketch.quantiles, record.quantiles, "quantile"),
        (sketch.values, record.values, "value"),
        (sketch.points, record.points, "point"),
    ):
        part.add(_dense(sparse, part.size, finite if part.size else 0, what))
    if finite == 0:
        empty = NumericRecord(name=record.name, n=record.n, missing=record.missing, inf=record.inf)
        _require(record == empty, "it describes values, but has none that is finite")
        return sketch
    _require(-LARGEST <= record.min <= record.max <= LARGEST, "min and max are out of order or beyond 1e100")
    sketch.min, sketch.max = record.min, record.max
    sketch.moments = _moments(finite, record.mean, record.m2, record.min, record.max)
    if seen is None:
        _require(not record.below and not record.above, "it has values beyond bins that are not there")
        return sketch
    low, high = seen.fine_low, seen.fine_high
    sketch.below = _tail(record.below, record.below_excess, low - record.min, "below", finite)
    sketch.above = _tail(record.above, record.above_excess, record.max - high, "above", finite)
    sketch.inner = sketch.moments
    if record.below or record.above:
        mean, m2 = record.inner_mean, record.inner_m2
        if mean is None or m2 is None:
            raise ValueError("it has values beyond the bins, but no inner mean and m2")
        ends = np.clip([record.min, record.max], low, high)
        sketch.inner = _moments(finite, mean, m2, float(ends[0]), float(ends[1]))
    _check_extremes(sketch, seen)
    return sketch


def _check_extremes(sketch: NumericSketch, seen: Distribution) -> None:
    """The first and the last value lie in the first and the last bin that is not empty."""
    parts = (sketch.fine, sketch.quantiles, sketch.values, sketch.points)
    ends = cells_of(np.array([sketch.min, sketch.max]), seen)
    for part, cells in zip(parts, ends, strict=True):
        if not part.size:
            continue
        counts = part.dense()
        if part is sketch.values:
            # The last of these counts all that is none of the values, wherever it lies.
            _require(bool(counts[cells].all()), "its min or max is in no value that was counted")
            continue
        used = np.flatnonzero(counts)
        _require((used[0], used[-1]) == (cells[0], cells[1]), "its min and max are not in its outer bins")
    fine = sketch.fine.dense()
    if sketch.below.count > fine[0] or sketch.above.count > fine[-1]:
        raise ValueError("it has more values beyond the bins than in the outer bins")


def _moments(n: int, mean: float, m2: float, low: float, high: float) -> Moments:
    slack = ROUNDING * max(abs(low), abs(high))
    _require(low - slack <= mean <= high + slack, "its mean is not between min and max")
    # No n values between two ends can lie further apart than half of them at each end.
    most = n * ((high - low) / 2 + slack) ** 2
    _require(0 <= m2 <= most * (1 + ROUNDING), "its m2 does not fit n, min and max")
    return Moments(n, min(max(mean, low), high), m2)


def _tail(count: int, excess: float, furthest: float, side: str, finite: int) -> Tail:
    _require(count <= finite and (count > 0) == (furthest > 0), f"its count {side} the bins does not fit")
    most = count * max(furthest, 0.0)
    least = furthest if count else 0.0
    slack = ROUNDING * most
    _require(least - slack <= excess <= most + slack, f"its sum {side} the bins does not fit its extremes")
    return Tail(count, excess)


def _sparse(counters: Counters) -> Sparse:
    counts = counters.dense()
    index = np.flatnonzero(counts)
    if not index.size:
        return NOTHING  # itself: an equal one would not be left out
    return Sparse(gap=tuple(np.diff(index, prepend=-1).tolist()), count=tuple(counts[index].tolist()))


def _dense(sparse: Sparse, size: int, total: int, what: str) -> Ints:
    _require(len(sparse.gap) == len(sparse.count) <= size, f"its {what} counts are of a wrong length")
    # Each on its own first: a sum of 2,001 large numbers is none that fits.
    gaps = _between(sparse.gap, 1, size, f"its {what} counts are not in order")
    _require(sum(sparse.gap) <= size, f"its {what} counts reach beyond the last bin")
    found = _between(sparse.count, 1, MAX_COUNT, f"one of its {what} counts is zero or over 2**53")
    _require(sum(sparse.count) == total, f"its {what} counts make {sum(sparse.count)}, not {total}")
    counts = np.zeros(size, dtype=np.int64)
    counts[np.cumsum(gaps) - 1] = found
    return counts


def _between(numbers: Sequence[int], least: int, most: int, problem: str) -> Ints:
    try:
        array = np.array(numbers, dtype=np.int64)
    except OverflowError as error:
        raise ValueError(problem) from error
    _require(bool(((array >= least) & (array <= most)).all()), problem)
    return array


def _in_range(*counts: int) -> None:
    _require(all(0 <= count <= MAX_COUNT for count in counts), "one of its numbers is negative or over 2**53")


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)
