"""All statistics of one window."""

from __future__ import annotations

from collections.abc import Iterable

from edgeflow_agent.drift import shares
from edgeflow_agent.drift.categorical import CategoricalComparison
from edgeflow_agent.drift.measures import Measure, Statistic
from edgeflow_agent.drift.numeric import NumericComparison
from edgeflow_agent.drift.sketch import NumericSketch, Sketch

Comparison = NumericComparison | CategoricalComparison


def measure(sketch: Sketch, wanted: Iterable[Statistic] = tuple(Statistic)) -> dict[Statistic, Measure]:
    """Those of the wanted statistics that this window has, in their order.

    Without finite values (or words) in the window and in the baseline only shares are left, and without any
    value nothing.
    """
    found: dict[Statistic, Measure] = {}
    apart, parts = compare(sketch), shares.of(sketch)
    for statistic in wanted:
        if statistic in parts:
            found[statistic] = Measure(parts[statistic].value)
        elif apart is not None and (number := apart.measure(statistic)) is not None:
            found[statistic] = number
    return found


def compare(sketch: Sketch) -> Comparison | None:
    """The window beside its baseline; None where one of them has no finite value (or no word)."""
    if isinstance(sketch, NumericSketch):
        seen = sketch.feature.distribution
        return NumericComparison(sketch, seen) if seen is not None and sketch.finite else None
    known = sketch.feature.n - sketch.feature.missing
    return CategoricalComparison(sketch) if known and sketch.present else None
