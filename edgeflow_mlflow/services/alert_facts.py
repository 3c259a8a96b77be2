"""Gather what alert rules look at: a handful of queries over the whole fleet, never one for each device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.elements import ColumnElement

from edgeflow_agent.wire.states import State as Step
from edgeflow_agent.wire.telemetry import LATENCY_BUCKETS
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import alert_kinds, rollouts, selectors
from edgeflow_mlflow.domain.alert_facts import DriftFact, Facts, Load, Newest, RolloutFact, TargetFact
from edgeflow_mlflow.domain.alert_findings import NEWEST_M
from edgeflow_mlflow.domain.alert_rules import Rule
from edgeflow_mlflow.domain.rollouts import WaveState
from edgeflow_mlflow.services.state import State

_T = TypeVar("_T", bound=alert_kinds.Parameters)
_Window, _Target = models.Window, models.Target


def gather(state: State, session: Session, rules: Sequence[Rule]) -> Facts:
    """All that these rules need, and no more."""
    now = state.now()
    deployments = {
        row.id: row.name for row in session.execute(select(models.Deployment.id, models.Deployment.name))
    }
    loads = {
        **_minutes(rules, alert_kinds.ErrorRateParameters),
        **_minutes(rules, alert_kinds.ThroughputParameters),
        **_minutes(rules, alert_kinds.QueueParameters),
    }
    timed = _minutes(rules, alert_kinds.LatencyParameters)
    newest = _minutes(rules, alert_kinds.DroppedParameters)
    if _has(rules, "disk_low", "temperature_high"):
        newest[NEWEST_M] = None
    heard = _minutes(rules, alert_kinds.MissingParameters)
    return Facts(
        now=now,
        targets=_targets(state, session, rules, deployments),
        loads={
            minutes: _loads(session, now, minutes, deployments, latency=minutes in timed)
            for minutes in {**loads, **timed}
        },
        newest={minutes: _newest(session, now, minutes) for minutes in newest},
        heard={minutes: _heard(session, now, minutes) for minutes in heard},
        speakers=_speakers(session) if heard else frozenset(),
        drift=_drift(session) if _has(rules, "drift") else (),
        rollouts=_rollouts(session, now, rules, deployments) if _has(rules, "rollout_stopped") else (),
    )


def _has(rules: Iterable[Rule], *kinds: str) -> bool:
    return any(rule.kind in kinds for rule in rules)


def _minutes(rules: Iterable[Rule], kind: type[_T]) -> dict[int, None]:
    found = (rule.parameters for rule in rules)
    return {item.minutes: None for item in found if isinstance(item, kind)}  # type: ignore[attr-defined]


# ---- devices


def _targets(
    state: State, session: Session, rules: Sequence[Rule], deployments: dict[str, str]
) -> dict[str, TargetFact]:
    fleets = session.scalars(select(models.Fleet).order_by(models.Fleet.name)).all()
    texts = [*(item.selector for item in fleets), *(item.selector for item in rules)]
    wanted = [selectors.parse(text) for text in texts if text]
    # What a device says of itself is large: read only for those who ask for it.
    asks = any(part.key in selectors.FACTS for requirements in wanted for part in requirements)
    presence: Any = _Target.presence if asks else None
    names = {
        row.digest: (row.model_name, row.model_version)
        for row in session.execute(
            select(models.Bundle.digest, models.Bundle.model_name, models.Bundle.model_version)
        )
    }
    installed = _installed(session)
    may_speak = set(
        session.scalars(
            select(models.Credential.target_id).where(models.Credential.revoked_at.is_(None)).distinct()
        )
    )
    chosen = [
        (item.name, frozenset(item.targets), selectors.parse(item.selector) if item.selector else ())
        for item in fleets
    ]
    found = {}
    columns = [
        _Target.id,
        _Target.labels,
        _Target.last_seen_at,
        _Target.deployment_id,
        _Target.actual_digest,
        *([presence] if asks else []),
    ]
    for row in session.execute(select(*columns)):
        known = selectors.known(row.labels, row.presence if asks else {})
        model, version = names.get(row.actual_digest, ("", ""))
        digest = installed.get(row.id, "")
        wanted_model, wanted_version = names.get(digest, ("", ""))
        found[row.id] = TargetFact(
            id=row.id,
            online=state.is_online(row.last_seen_at),
            expected=row.last_seen_at is not None and row.id in may_speak,
            last_seen_at=row.last_seen_at,
            labels=row.labels,
            known=known,
            fleets=tuple(sorted(name for name, ids, parts in chosen if _is_in(row.id, known, ids, parts))),
            deployment=deployments.get(row.deployment_id or "", ""),
            model=model,
            version=version,
            digest=row.actual_digest,
            wanted=digest,
            wanted_name=f"{wanted_model}/{wanted_version}" if wanted_model else "",
        )
    return found


def _is_in(
    target_id: str, known: dict[str, str], ids: frozenset[str], parts: tuple[selectors.Requirement, ...]
) -> bool:
    return selectors.matches(parts, known) if parts else target_id in ids


_GIVEN_UP: ColumnElement[bool] = and_(
    models.Execution.state == Step.ROLLED_BACK.value, models.Execution.reason == "crash_loop"
)


def _installed(session: Session) -> dict[str, str]:
    """The digest that a target's newest execution brought, where that came to serve, for however long."""
    return {
        row[0]: row[1]
        for row in session.execute(
            select(_Target.id, models.Bundle.digest)
            .join(
                models.Execution,
                and_(
                    models.Execution.target_id == _Target.id,
                    models.Execution.generation == _Target.generation,
                ),
            )
            .join(models.Rollout, models.Rollout.id == models.Execution.rollout_id)
            .join(models.Bundle, models.Bundle.id == models.Rollout.bundle_id)
            .where(
                models.Execution.action == "install",
                or_(models.Execution.state == Step.DEPLOYED.value, _GIVEN_UP),
            )
        )
    }


# ---- telemetry


def _recent(now: datetime, minutes: int) -> ColumnElement[bool]:
    """What came within so many minutes, and is not from long before: a spool that is emptied is history."""
    since = now - timedelta(minutes=minutes)
    return and_(_Window.span == "raw", _Window.received_at > since, _Window.end_at > since)


def _loads(
    session: Session, now: datetime, minutes: int, deployments: dict[str, str], *, latency: bool
) -> list[Load]:
    buckets = range(len(LATENCY_BUCKETS) + 1) if latency else range(0)
    # As floats: a number that a device made up must not be too large for the database's whole numbers.
    sums: list[Any] = [func.sum(_Window.latency_counts[number].as_float()) for number in buckets]
    rows = session.execute(
        select(
            _Window.target_id,
            _Window.deployment_id,
            _Window.model_name,
            _Window.model_version,
            func.sum(_Window.requests),
            func.sum(_Window.failed),
            func.sum(_Window.outcomes["rejected"].as_float()),
            *sums,
        )
        .where(_recent(now, minutes))
        .group_by(_Window.target_id, _Window.deployment_id, _Window.model_name, _Window.model_version)
    )
    return [
        Load(
            target=row[0],
            deployment=deployments.get(str(row[1]), ""),
            model=row[2],
            version=row[3],
            requests=float(row[4] or 0),
            failed=float(row[5] or 0),
            rejected=float(row[6] or 0),
            latency=tuple(float(value or 0) for value in row[7:]),
        )
        for row in rows
    ]


def _newest(session: Session, now: datetime, minutes: int) -> dict[str, Newest]:
    ends = (
        select(
            _Window.target_id.label("target_id"),
            func.min(_Window.id).label("first"),
            func.max(_Window.id).label("last"),
        )
        .where(_recent(now, minutes))
        .group_by(_Window.target_id)
        .subquery()
    )
    first, last = aliased(_Window), aliased(_Window)
    rows = session.execute(
        select(ends.c.target_id, last.resources, last.dropped, first.dropped)
        .join(last, last.id == ends.c.last)
        .join(first, first.id == ends.c.first)
    )
    return {
        target: Newest(
            disk_free_ratio=_number(said, "disk_free_ratio"),
            disk_free_bytes=_number(said, "disk_free_bytes"),
            temperature_c=_number(said, "temperature_c"),
            # It falls when a device begins anew.
            dropped=max(0, now_lost - lost_before),
        )
        for target, said, now_lost, lost_before in rows
    }


def _number(said: dict[str, Any], name: str) -> float | None:
    value = said.get(name)
    return float(value) if isinstance(value, int | float) else None


def _heard(session: Session, now: datetime, minutes: int) -> frozenset[str]:
    since = now - timedelta(minutes=minutes)
    return frozenset(
        session.scalars(
            select(_Window.target_id).where(_Window.span == "raw", _Window.received_at > since).distinct()
        )
    )


def _speakers(session: Session) -> frozenset[str]:
    any_window = select(_Window.id).where(_Window.target_id == _Target.id).exists()
    return frozenset(session.scalars(select(_Target.id).where(any_window)))


def _drift(session: Session) -> list[DriftFact]:
    drift = models.Drift
    rows = session.execute(
        select(
            drift.scope,
            drift.scope_id,
            drift.feature,
            drift.kind,
            drift.model_name,
            drift.model_version,
            drift.digest,
            drift.signals,
        ).where(drift.alarm.is_(True))
    )
    return [
        DriftFact(
            scope=row.scope,
            scope_id=row.scope_id,
            feature=row.feature,
            kind=row.kind,
            model=row.model_name,
            version=row.model_version,
            digest=row.digest,
            signal=next(
                (str(item.get("text", "")) for item in row.signals if item.get("status") == "drift"), ""
            ),
        )
        for row in rows
    ]


# ---- rollouts


def _rollouts(
    session: Session, now: datetime, rules: Iterable[Rule], deployments: dict[str, str]
) -> list[RolloutFact]:
    longest = max(_minutes(rules, alert_kinds.RolloutParameters), default=0)
    rollout, wave = models.Rollout, models.RolloutWave
    # A person who pauses a rollout knows of it.
    by_gate = and_(rollout.state == rollouts.State.PAUSED.value, wave.state == WaveState.FAILED.value)
    failed = and_(
        rollout.state == rollouts.State.FAILED.value,
        rollout.finished_at > now - timedelta(minutes=longest),
    )
    query = (
        select(rollout, models.Bundle.model_name, models.Bundle.model_version)
        .join(models.Deployment, models.Deployment.id == rollout.deployment_id)
        .join(models.Bundle, models.Bundle.id == rollout.bundle_id)
        .join(wave, and_(wave.rollout_id == rollout.id, wave.number == rollout.wave))
        .where(models.Deployment.live_name.is_not(None), or_(by_gate, failed))
    )
    return [
        RolloutFact(
            deployment=deployments[row.deployment_id],
            number=row.number,
            model=model,
            version=version,
            state=row.state,
            why=row.why,
            finished_at=row.finished_at,
        )
        for row, model, version in session.execute(query)
    ]
