"""All statistics of windows."""

from __future__ import annotations

from collections.abc import Iterable

from edgeflow_agent.drift import shares, stack
from edgeflow_agent.drift.categorical import CategoricalComparison
from edgeflow_agent.drift.measures import Measure, Measures, Statistic
from edgeflow_agent.drift.numeric import NumericComparison
from edgeflow_agent.drift.sketch import Sketch
from edgeflow_agent.drift.stack import NumericStack, Stack

Comparison = NumericComparison | CategoricalComparison


def measure(sketch: Sketch, wanted: Iterable[Statistic] = tuple(Statistic)) -> dict[Statistic, Measure]:
    """Those of the wanted statistics that this window has, in their order.

    Without finite values (or words) in the window and in the baseline only shares are left, and without any
    value nothing.
    """
    one = stack.of([sketch])
    apart, parts = compare(one), shares.of(one)
    found: dict[Statistic, Measure] = {}
    for statistic in wanted:
        if statistic in parts:
            measured: Measures | None = Measures(parts[statistic].values)
        else:
            measured = apart.measure(statistic) if apart is not None else None
        if measured is not None and (number := measured.of_row(0)) is not None:
            found[statistic] = number
    return found


def compare(windows: Stack) -> Comparison | None:
    """Windows beside their baseline; None where one of them, or the baseline, has no finite value (or no
    word)."""
    if isinstance(windows, NumericStack):
        seen = windows.feature.distribution
        return NumericComparison(windows, seen) if seen is not None and windows.finite.all() else None
    known = windows.feature.n - windows.feature.missing
    return CategoricalComparison(windows) if known and windows.present.all() else None
