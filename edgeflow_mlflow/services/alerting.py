"""Move alerts on and write down who is to be told, both in one transaction. Run by the hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import alert_findings, alerts
from edgeflow_mlflow.domain.alert_rules import Rule
from edgeflow_mlflow.domain.alerts import Life, Phase, Timing
from edgeflow_mlflow.services import alert_facts, alert_rules
from edgeflow_mlflow.services.state import State
from edgeflow_mlflow.services.telling import Telling

logger = logging.getLogger(__name__)

# So many alerts of one rule: a rule that finds more says nothing that the first ones do not say.
MOST_PER_RULE = 1000
# What an alert says is written anew so often while it fires.
_REFRESH = timedelta(seconds=60)
_BATCH = 2000


@dataclass(frozen=True, kw_only=True)
class Found:
    """Something that holds now, in the words of its rule."""

    rule: Rule
    labels: dict[str, str]
    annotations: dict[str, str]


def evaluate(state: State) -> bool:
    """One look at everything; whether something was written. Most looks find nothing to do, and need no lock
    to find that."""
    with state.database.read() as session:
        rules = alert_rules.every(session)
        found = _find(state, session, [rule for rule in rules.values() if rule.enabled])
        if not _Look(state, session, rules, found).is_news():
            return False
    with state.database.write() as session:
        _Look(state, session, rules, found).carry_out()
    return True


def _find(state: State, session: Session, rules: Sequence[Rule]) -> dict[str, Found]:
    facts = alert_facts.gather(state, session, rules)
    found = {}
    for rule in rules:
        for finding in alert_findings.find(rule, facts)[:MOST_PER_RULE]:
            found[alert_findings.fingerprint(rule, finding)] = Found(
                rule=rule,
                labels=alert_findings.labels(rule, finding),
                annotations=alert_findings.texts(rule, finding),
            )
    return found


@dataclass(frozen=True, kw_only=True)
class _Step:
    """An alert and what becomes of it."""

    name: str
    row: models.Alert | None
    life: Life
    found: Found | None


class _Look:
    """What follows from what was found, in one session."""

    def __init__(
        self, state: State, session: Session, rules: Mapping[str, Rule], found: Mapping[str, Found]
    ) -> None:
        self._state = state
        self._session = session
        self._rules = rules
        self._found = found
        self._now = state.now()
        self._gap = timedelta(seconds=max(60.0, 3 * state.config["alerts.every_s"]))
        self._live = {
            row.fingerprint: row
            for row in session.scalars(select(models.Alert).where(models.Alert.live.is_not(None)))
        }

    def is_news(self) -> bool:
        """Whether something is to be written."""
        if any(self._is_due(step) for step in self._steps()):
            return True
        firing = [row for row in self._live.values() if row.phase == Phase.FIRING]
        return Telling(self._state, self._session, firing).is_news()

    def carry_out(self) -> None:
        """Write it."""
        firing = []
        for step in self._steps():
            row = step.row
            if self._is_due(step):
                row = self._moved(step)
            if row is not None and row.phase == Phase.FIRING:
                firing.append(row)
        self._session.flush()  # a new alert has its number only now
        Telling(self._state, self._session, firing).carry_out()

    def _steps(self) -> Iterator[_Step]:
        for name in sorted(self._live.keys() | self._found.keys()):
            row, found = self._live.get(name), self._found.get(name)
            rule = found.rule if found else self._rules.get(row.rule) if row is not None else None
            timing = Timing(gap=self._gap)
            # A rule that is gone or switched off holds nothing up.
            if rule is not None and rule.enabled:
                timing = Timing(hold=rule.hold, keep=rule.keep, gap=self._gap)
            before = Life() if row is None else life(row)
            after = alerts.step(before, found is not None, self._now, timing)
            yield _Step(name=name, row=row, life=after, found=found)

    def _is_due(self, step: _Step) -> bool:
        if step.row is None:
            return step.life.phase is not Phase.INACTIVE
        before = life(step.row)
        if before.phase is step.life.phase is Phase.PENDING and before.active_at == step.life.active_at:
            # That somebody looked is written down, but not each time: a thousand may be pending.
            return before.looked_at is None or self._now - before.looked_at > self._gap / 2
        if step.life != before:
            return True
        if step.found is None or self._now < step.row.updated_at + _REFRESH:
            return False
        says = (step.row.labels, step.row.annotations)
        return says != (step.found.labels, step.found.annotations)

    def _moved(self, step: _Step) -> models.Alert | None:
        row, found, after = step.row, step.found, step.life
        if row is None:
            assert found is not None  # what nobody found does not begin
            row = models.Alert(
                live=step.name,
                fingerprint=step.name,
                rule=found.rule.name,
                target_id=found.labels.get("target", ""),
            )
            self._session.add(row)
        if after.phase is Phase.INACTIVE:
            self._session.delete(row)
            return None
        if row.phase != after.phase and after.phase is not Phase.PENDING:
            logger.info("%s %s is %s", row.rule, row.target_id, after.phase.value, extra={"action": "alert"})
        if found is not None:
            row.labels, row.annotations = found.labels, found.annotations
            row.severity = found.rule.severity.value
        row.phase = after.phase.value
        row.active_at, row.looked_at, row.fired_at = after.active_at, after.looked_at, after.fired_at
        row.cleared_at, row.resolved_at = after.cleared_at, after.resolved_at
        row.updated_at = self._now
        if after.phase is Phase.RESOLVED:
            row.live = None
        return row


def life(row: models.Alert) -> Life:
    """A stored alert's life."""
    return Life(
        phase=Phase(row.phase),
        active_at=row.active_at,
        looked_at=row.looked_at,
        fired_at=row.fired_at,
        cleared_at=row.cleared_at,
        resolved_at=row.resolved_at,
    )


def forget_old(state: State) -> None:
    """Keep the tables bounded, in slices so that nobody waits for the lock."""
    oldest = state.now() - timedelta(days=state.config["alerts.keep_days"])
    for kind, ended in (
        (models.Alert, models.Alert.resolved_at < oldest),
        (models.Silence, models.Silence.ends_at < oldest),
        (models.Delivery, models.Delivery.ended_at < oldest),
    ):
        with state.database.write() as session:
            ids = session.scalars(select(kind.id).where(ended).limit(_BATCH)).all()
            if ids:
                session.execute(delete(kind).where(kind.id.in_(ids)))
