"""What one feature was in one window, as a device sends it: counts in the bins of the baseline.

The records only ever grow, as those of `wire.documents` do. `drift.record` makes them from sketches and back.
"""

from __future__ import annotations

import msgspec

from edgeflow_agent.wire.documents import Count, Text


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", gc=False):
    """Immutable, by keyword, defaults left out on the wire. None can be part of a cycle, and so the garbage
    collector need not look at them: a server has many at once."""


class Sparse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The counters that are not zero: `gap` is how far each lies behind the one listed before it (the first:
    behind -1), `count` what it has counted. Gaps are small numbers, which is what makes a record small."""

    gap: tuple[Count, ...] = ()
    count: tuple[Count, ...] = ()


NOTHING = Sparse()


class NumericRecord(_Record, frozen=True, tag="numeric"):
    """A `NumericSketch`. `min`, `max`, `mean` and `m2` are 0 without finite values; `inner_mean` and
    `inner_m2` are those after every value was moved into the fine bins, left out when none had to be.
    `below` and `above` count those, `below_excess` and `above_excess` sum their distances."""

    name: Text
    n: Count = 0
    missing: Count = 0
    inf: Count = 0
    min: float = 0.0
    max: float = 0.0
    mean: float = 0.0
    m2: float = 0.0
    inner_mean: float | None = None
    inner_m2: float | None = None
    below: Count = 0
    below_excess: float = 0.0
    above: Count = 0
    above_excess: float = 0.0
    fine: Sparse = NOTHING
    quantiles: Sparse = NOTHING
    values: Sparse = NOTHING
    points: Sparse = NOTHING


class CategoricalRecord(_Record, frozen=True, tag="categorical"):
    """A `CategoricalSketch`: `counts` in the order of the baseline's categories."""

    name: Text
    n: Count = 0
    missing: Count = 0
    other: Count = 0
    counts: Sparse = NOTHING


SketchRecord = NumericRecord | CategoricalRecord
