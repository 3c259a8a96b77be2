"""What a device says of drift by itself, in `/model` and `/metrics`; without a server as well."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgeflow_agent.drift.watch import Standing


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftView:
    """What this device says of the model's inputs and outputs: against which baseline (empty: none yet),
    whether it has learned that itself, and how each feature stands that has been judged."""

    baseline: str = ""
    is_learned: bool = False
    standings: tuple[Standing, ...] = ()

    def page(self) -> dict[str, Any]:
        """For people: features that drift first, each with the sentences that say why."""
        ordered = sorted(self.standings, key=lambda item: (not item.alarm, item.verdict.status != "drift"))
        return {
            "baseline": self.baseline,
            "is_learned": self.is_learned,
            "alarm": any(item.alarm for item in ordered),
            "features": [
                {
                    "feature": item.verdict.feature,
                    "status": item.verdict.status,
                    "alarm": item.alarm,
                    "samples": item.n,
                    "why": [signal.text for signal in item.verdict.signals if signal.status == "drift"],
                }
                for item in ordered
            ],
        }
