"""Routes for alert rules."""

from __future__ import annotations

from collections import Counter

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeflow_mlflow.api import records
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import alert_rules as rules
from edgeflow_mlflow.domain.alert_rules import STARTERS, Rule
from edgeflow_mlflow.domain.alerts import Phase
from edgeflow_mlflow.services import alert_rules, rule_trials


def _counts(session: Session) -> Counter[tuple[str, str]]:
    alert = models.Alert
    found = session.execute(
        select(alert.rule, alert.phase, func.count())
        .where(alert.live.is_not(None))
        .group_by(alert.rule, alert.phase)
    )
    return Counter({(rule, phase): count for rule, phase, count in found})


def _view(rule: Rule, changed: set[str], counts: Counter[tuple[str, str]]) -> records.RuleView:
    origin = "own"
    if rule.name in STARTERS:
        origin = "changed" if rule.name in changed else "starter"
    return records.RuleView(
        name=rule.name,
        origin=origin,
        kind=rule.kind,
        parameters=msgspec.to_builtins(rule.parameters),
        for_s=rule.hold.total_seconds(),
        keep_firing_for_s=rule.keep.total_seconds(),
        severity=rule.severity.value,
        selector=rule.selector,
        model=rule.model,
        deployment=rule.deployment,
        labels=dict(rule.labels),
        annotations=dict(rule.annotations),
        enabled=rule.enabled,
        firing=counts[rule.name, Phase.FIRING.value],
        pending=counts[rule.name, Phase.PENDING.value],
    )


def _changed(session: Session) -> set[str]:
    return set(session.scalars(select(models.AlertRule.name)))


def listing(call: Call) -> records.RuleList:
    """All rules, in order of their names."""
    with call.state.database.read() as session:
        counts, changed = _counts(session), _changed(session)
        found = [_view(rule, changed, counts) for rule in alert_rules.every(session).values()]
    return records.RuleList(rules=found)


def show(call: Call) -> records.RuleView:
    """One rule."""
    with call.state.database.read() as session:
        rule = alert_rules.get(session, call.path["name"])
        return _view(rule, _changed(session), _counts(session))


def _read(name: str, body: records.RulePut) -> Rule:
    return rules.rule(
        name=name,
        kind=body.kind,
        parameters=body.parameters,
        hold_s=body.for_s,
        keep_s=body.keep_firing_for_s,
        severity=body.severity,
        selector=body.selector,
        model=body.model,
        deployment=body.deployment,
        labels=body.labels,
        annotations=body.annotations,
        enabled=body.enabled,
    )


def put(call: Call) -> records.RuleView:
    """Make it, or put it in place of the one of that name."""
    rule = _read(call.path["name"], call.body)
    alert_rules.put(call.state, rule, msgspec.to_builtins(rule.parameters), actor=call.actor.name)
    return show(call)


def attempt(call: Call) -> records.RuleTrial:
    """How often it would have fired; nothing is kept and nobody is told."""
    rule = _read("Trial", call.body)
    with call.state.database.read() as session:
        trial = rule_trials.attempt(call.state, session, rule)
    outcome = trial.outcome
    if outcome is None:
        return records.RuleTrial(
            can_tell=False,
            since=trial.since,
            text=f"What a rule of kind {rule.kind} looks at is not kept, so the past cannot be told.",
        )
    return records.RuleTrial(
        can_tell=True,
        since=trial.since,
        times=outcome.times,
        objects=outcome.objects,
        last_at=outcome.last_at,
    )


def remove(call: Call) -> records.Empty:
    """Forget it; a starter rule is then as it was from the start."""
    alert_rules.delete(call.state, call.path["name"], actor=call.actor.name)
    return records.Empty()


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="GET",
        rule="/alert-rules",
        policy=Policy.READ,
        handler=listing,
        summary="All alert rules",
        answer=records.RuleList,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/alert-rules/<name>",
        policy=Policy.READ,
        handler=show,
        summary="One alert rule",
        answer=records.RuleView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="PUT",
        rule="/alert-rules/<name>",
        policy=Policy.OPERATE,
        handler=put,
        summary="Make an alert rule, change it, or switch it off",
        body=records.RulePut,
        answer=records.RuleView,
        errors=(*_REFUSED, 404, 409),
    ),
    Route(
        method="POST",
        rule="/alert-rules/try",
        policy=Policy.READ,
        handler=attempt,
        summary="How often a rule would have fired in the last day",
        body=records.RulePut,
        answer=records.RuleTrial,
        errors=_REFUSED,
    ),
    Route(
        method="DELETE",
        rule="/alert-rules/<name>",
        policy=Policy.OPERATE,
        handler=remove,
        summary="Forget an alert rule; a starter rule is as at the start again",
        answer=records.Empty,
        errors=(*_REFUSED, 404, 409),
    ),
)
