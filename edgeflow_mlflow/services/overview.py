"""The whole fleet at a glance: a handful of queries, never one for each device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from edgeflow_agent.wire.states import State as Step
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import health, selectors
from edgeflow_mlflow.domain.health import Flag
from edgeflow_mlflow.services.state import State

_Target = models.Target


@dataclass(frozen=True, kw_only=True)
class Row:
    """One target in short."""

    id: str
    labels: dict[str, str]
    flags: tuple[Flag, ...]
    model: str
    version: str
    deployment: str
    step: str
    reason: str
    drift_alarms: int
    last_seen_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Targets counted: by flag, and by the model that they serve."""

    targets: int
    flags: Counter[Flag]
    versions: Counter[tuple[str, str]]


def overview(state: State, session: Session, selector: str = "") -> Overview:
    """All targets, or those that a selector picks."""
    found = list(rows(state, session, selector=selector))
    return Overview(
        targets=len(found),
        flags=Counter(flag for row in found for flag in row.flags),
        versions=Counter((row.model, row.version) for row in found),
    )


def page(
    state: State,
    session: Session,
    *,
    selector: str,
    flag: str,
    model: str,
    version: str,
    after: str,
    limit: int,
) -> list[Row]:
    """Up to `limit` targets after one id that have the flag and serve the model."""
    kept: list[Row] = []
    for row in rows(state, session, selector=selector, after=after):
        if flag and flag not in row.flags:
            continue
        if model and (row.model, row.version if version else "") != (model, version):
            continue
        kept.append(row)
        if len(kept) >= limit:
            break
    return kept


def rows(state: State, session: Session, *, selector: str = "", after: str = "") -> Iterator[Row]:
    """Targets in order of their id."""
    requirements = selectors.parse(selector) if selector else ()
    digests = _digests(session)
    deployments: dict[str, str] = {
        row.id: row.name for row in session.execute(select(models.Deployment.id, models.Deployment.name))
    }
    alarms = _alarms(session)
    execution = models.Execution
    query = (
        select(
            _Target.id,
            _Target.labels,
            _Target.presence,
            _Target.last_seen_at,
            _Target.held_at,
            _Target.deployment_id,
            _Target.rollout_id,
            _Target.actual_digest,
            execution.state.label("step"),
            execution.reason,
        )
        .outerjoin(
            execution,
            and_(execution.target_id == _Target.id, execution.generation == _Target.generation),
        )
        .where(_Target.id > after)
        .order_by(_Target.id)
    )
    for row in session.execute(query).yield_per(500):
        if not selectors.matches(requirements, selectors.known(row.labels, row.presence)):
            continue
        drifting = alarms.get((row.id, row.actual_digest), 0)
        facts = health.Facts(
            was_seen=row.last_seen_at is not None,
            is_online=state.is_online(row.last_seen_at),
            is_stale=bool(row.presence.get("stale")),
            is_held=row.held_at is not None,
            in_sync=row.rollout_id is None or digests.get(row.rollout_id) == row.actual_digest,
            drift_alarms=drifting,
            step=Step(row.step) if row.step else None,
        )
        yield Row(
            id=row.id,
            labels=row.labels,
            flags=health.flags(facts),
            model=_said(row.presence, "model"),
            version=_said(row.presence, "version"),
            deployment=deployments.get(row.deployment_id or "", ""),
            step=row.step or "",
            reason=row.reason or "",
            drift_alarms=drifting,
            last_seen_at=row.last_seen_at,
        )


def _said(presence: dict[str, Any], name: str) -> str:
    value = presence.get(name, "")
    return value if isinstance(value, str) else ""


def _digests(session: Session) -> dict[str, str]:
    """The bundle that each rollout which a target follows brings."""
    followed = select(_Target.rollout_id).where(_Target.rollout_id.is_not(None)).distinct()
    found = session.execute(
        select(models.Rollout.id, models.Bundle.digest)
        .join(models.Bundle, models.Bundle.id == models.Rollout.bundle_id)
        .where(models.Rollout.id.in_(followed))
    )
    return {row.id: row.digest for row in found}


def _alarms(session: Session) -> dict[tuple[str, str], int]:
    """How many features of a target drift, under the model that they were judged with."""
    drift = models.Drift
    found = session.execute(
        select(drift.scope_id, drift.digest, func.count())
        .where(drift.scope == "target", drift.alarm.is_(True))
        .group_by(drift.scope_id, drift.digest)
    )
    return {(target, digest): count for target, digest, count in found}
