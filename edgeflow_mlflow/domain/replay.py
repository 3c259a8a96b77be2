"""How often a rule would have fired: looks from the past go in, what would have begun comes out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from edgeflow_mlflow.domain import alert_findings, alerts
from edgeflow_mlflow.domain.alert_facts import Facts
from edgeflow_mlflow.domain.alert_rules import Rule
from edgeflow_mlflow.domain.alerts import Life, Phase, Timing


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How often alerts would have begun, on how many objects, and when the last one did."""

    times: int = 0
    objects: int = 0
    last_at: datetime | None = None


def replay(rule: Rule, looks: Iterable[Facts], every: timedelta) -> Outcome:
    """Live through the looks, which are in order and so far apart."""
    timing = Timing(hold=rule.hold, keep=rule.keep, gap=2 * every)
    lives: dict[str, Life] = {}
    times, fired, last_at = 0, set(), None
    for facts in looks:
        found = {alert_findings.fingerprint(rule, finding) for finding in alert_findings.find(rule, facts)}
        for name in found | lives.keys():
            before = lives.get(name, Life())
            after = alerts.step(before, name in found, facts.now, timing)
            if after.phase is Phase.FIRING and before.phase is not Phase.FIRING:
                times += 1
                fired.add(name)
                last_at = facts.now
            if after.phase in (Phase.INACTIVE, Phase.RESOLVED):
                lives.pop(name, None)
            else:
                lives[name] = after
    return Outcome(times=times, objects=len(fired), last_at=last_at)
