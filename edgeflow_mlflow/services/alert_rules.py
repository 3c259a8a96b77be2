"""Alert rules as they stand: those from the start, as far as nobody changed them, and those of people."""

from __future__ import annotations

import difflib
import logging

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import alert_rules
from edgeflow_mlflow.domain.alert_rules import STARTERS, Rule
from edgeflow_mlflow.services import audit
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)

MAX_RULES = 200


def every(session: Session) -> dict[str, Rule]:
    """All rules by name, in order."""
    own = {}
    for row in session.scalars(select(models.AlertRule)):
        try:
            own[row.name] = of_row(row)
        except errors.InvalidError as error:
            # Written by another version of this server: the other rules must go on.
            logger.warning("alert rule %s cannot be used by this version: %s", row.name, error)
    return dict(sorted({**STARTERS, **own}.items()))


def of_row(row: models.AlertRule) -> Rule:
    """A stored rule."""
    return alert_rules.rule(
        name=row.name,
        kind=row.kind,
        parameters=row.parameters,
        hold_s=row.hold_s,
        keep_s=row.keep_s,
        severity=row.severity,
        selector=row.selector,
        model=row.model_name,
        deployment=row.deployment,
        labels=row.labels,
        annotations=row.annotations,
        enabled=row.enabled,
    )


def get(session: Session, name: str) -> Rule:
    """A rule, or NotFoundError that names the nearest."""
    known = every(session)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`edgeflow alerts rules` shows them"
        raise errors.NotFoundError(f"no alert rule {name!r}; {hint}")
    return known[name]


def put(state: State, rule: Rule, parameters: dict[str, object], *, actor: str) -> None:
    """Make a rule, or put it in place of the one of that name."""
    with state.database.write() as session:
        row = session.get(models.AlertRule, rule.name)
        if row is None:
            count = session.scalar(select(func.count()).select_from(models.AlertRule)) or 0
            if count >= MAX_RULES:
                raise errors.ConflictError(f"there are {MAX_RULES} rules already; delete one first")
            row = models.AlertRule(name=rule.name)
            session.add(row)
        row.kind, row.parameters = rule.kind, parameters
        row.hold_s, row.keep_s = rule.hold.total_seconds(), rule.keep.total_seconds()
        row.severity, row.selector = rule.severity.value, rule.selector
        row.model_name, row.deployment = rule.model, rule.deployment
        row.labels, row.annotations = dict(rule.labels), dict(rule.annotations)
        row.enabled = rule.enabled
        row.updated_at, row.updated_by = state.now(), actor
        audit.note(state, session, actor=actor, action="alert_rule.put", subject=rule.name)


def delete(state: State, name: str, *, actor: str) -> None:
    """Forget a rule; a starter rule is then again as it was from the start."""
    with state.database.write() as session:
        row = session.get(models.AlertRule, name)
        if row is None:
            get(session, name)
            raise errors.ConflictError(
                f"{name!r} is a starter rule that nobody changed, so there is nothing to delete: switch it "
                'off with {"enabled": false}'
            )
        session.delete(row)
        audit.note(state, session, actor=actor, action="alert_rule.delete", subject=name)
