"""What one device sees of one model: the window that is open, and the verdicts on those that were closed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from edgeflow_agent.drift import alarms, record, sketch, verdict
from edgeflow_agent.drift.baseline import Baseline
from edgeflow_agent.drift.features import Extraction
from edgeflow_agent.drift.sketch import Sketch
from edgeflow_agent.drift.verdict import Status, Thresholds, Verdict
from edgeflow_agent.wire.sketches import SketchRecord
from edgeflow_agent.wire.telemetry import MAX_FEATURES

# An alarm is for what lasts: this many of the newest judgements.
ALARM_OF = (2, 3)
FALSE_SHARE = 0.05
_LONGEST_S = 3600.0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a feature stands: the newest verdict, and whether enough of the newest ones agree for an alarm."""

    verdict: Verdict
    alarm: bool
    n: int


class Watch:
    """Counts rows into the sketches of all features, and judges them when enough have come together.

    Not thread-safe. `standings` holds the newest judgement of each feature that has one.
    """

    def __init__(
        self, baseline: Baseline, labels: Sequence[str], thresholds: Thresholds | None = None
    ) -> None:
        watched = baseline.features[:MAX_FEATURES]
        self.baseline = baseline
        self.left_out = len(baseline.features) - len(watched)
        self.standings: dict[str, Standing] = {}
        self._extraction = Extraction(watched, labels)
        self._thresholds = thresholds or Thresholds()
        self._open = [sketch.empty(feature) for feature in watched]
        self._unjudged = [sketch.empty(feature) for feature in watched]
        self._waited_s = 0.0
        self._history: dict[str, list[bool]] = {}

    def fold(
        self,
        feed: Mapping[str, Any],
        outputs: Mapping[str, Any],
        between: Callable[[], object] = lambda: None,
    ) -> None:
        """Count rows of tensors, one row for each sample. What a tensor does not have is left out. `between`
        is called after each feature."""
        for counted, column in zip(self._open, self._extraction.columns(feed, outputs), strict=True):
            if column is not None:
                counted.fold(column)
                between()

    def close(self, seconds: float) -> tuple[SketchRecord, ...]:
        """End the window, which lasted that long, and begin the next: its records, and new standings where
        enough values have come together."""
        records = tuple(record.to_record(counted) for counted in self._open if counted.n)
        for counted, total in zip(self._open, self._unjudged, strict=True):
            sketch.merge(total, counted)
        self._open = [sketch.empty(counted.feature) for counted in self._open]
        self._waited_s += seconds
        due = [total for total in self._unjudged if self._is_due(total)]
        if due:
            self._judge(due)
        return records

    def _is_due(self, total: Sketch) -> bool:
        return total.n >= self._thresholds.min_samples or (total.n > 0 and self._waited_s >= _LONGEST_S)

    def _judge(self, due: Sequence[Sketch]) -> None:
        verdicts = [verdict.judge(total, self._thresholds) for total in due]
        known = [1.0 if item.p_value is None else item.p_value for item in verdicts]
        stand_out = alarms.benjamini_hochberg(known, FALSE_SHARE)
        for total, found, stands_out in zip(due, verdicts, stand_out, strict=True):
            history = self._history.setdefault(found.feature, [])
            history.append(found.status is Status.DRIFT and stands_out)
            del history[: -ALARM_OF[1]]
            self.standings[found.feature] = Standing(
                verdict=found, alarm=alarms.holds(history, *ALARM_OF), n=total.n
            )
        judged = {id(total) for total in due}
        self._unjudged = [
            sketch.empty(total.feature) if id(total) in judged else total for total in self._unjudged
        ]
        if all(total.n == 0 for total in self._unjudged):
            self._waited_s = 0.0
