"""A sketch on the wire, and back."""

from __future__ import annotations

import msgspec
import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.drift import reading, sparse
from edgeflow_agent.drift.baseline import Feature
from edgeflow_agent.drift.counters import Counters
from edgeflow_agent.drift.sketch import CategoricalSketch, Sketch
from edgeflow_agent.wire.sketches import (
    NOTHING,
    CategoricalRecord,
    NumericRecord,
    SketchRecord,
    Sparse,
)


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
    found, problems = reading.read(feature, [record], np.zeros(1, dtype=np.int64), 1, sparse.flat)
    if found is None:
        raise errors.ContractError(
            f"the window of {feature.name[:100]!r} is refused: {problems[0]}", reason="document"
        )
    return found.sketch(0)


def _sparse(counters: Counters) -> Sparse:
    counts = counters.dense()
    index = np.flatnonzero(counts)
    if not index.size:
        return NOTHING  # itself: an equal one would not be left out
    return Sparse(gap=tuple(np.diff(index, prepend=-1).tolist()), count=tuple(counts[index].tolist()))
