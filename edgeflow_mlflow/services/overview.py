"""The whole fleet at a glance: a handful of queries, never one for each device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, Subquery, and_, false, func, or_, select
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
    flags: Counter[Flag] = Counter()
    versions: Counter[tuple[str, str]] = Counter()
    for row, count in _selected(state, session, selector) if selector else _grouped(state, session):
        for flag in health.flags(_facts(row)):
            flags[flag] += count
        versions[row.model or "", row.version or ""] += count
    return Overview(targets=versions.total(), flags=flags, versions=versions)


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
    said = _Target.presence
    where = [_Target.id > after]
    if model:
        where.append(said["model"].as_string() == model)
    if version:
        where.append(said["version"].as_string() == version)
    deployments: dict[str, str] = {
        row.id: row.name for row in session.execute(select(models.Deployment.id, models.Deployment.name))
    }
    kept: list[Row] = []
    for row, _ in _selected(state, session, selector, where):
        flags = health.flags(_facts(row))
        if flag and flag not in flags:
            continue
        kept.append(
            Row(
                id=row.id,
                labels=row.labels,
                flags=flags,
                model=row.model or "",
                version=row.version or "",
                deployment=deployments.get(row.deployment_id or "", ""),
                step=row.step or "",
                reason=row.reason or "",
                drift_alarms=row.drift_alarms,
                last_seen_at=row.last_seen_at,
            )
        )
        if len(kept) >= limit:
            break
    return kept


def _grouped(state: State, session: Session) -> Iterator[tuple[Any, int]]:
    """All targets, those of which the same is known at once: tens of thousands are a few groups."""
    known = _known(state).subquery()
    for row in session.execute(select(*known.c, func.count().label("targets")).group_by(*known.c)):
        yield row, row.targets


def _selected(
    state: State, session: Session, selector: str, where: Sequence[Any] = ()
) -> Iterator[tuple[Any, int]]:
    """Single targets in order of their id."""
    requirements = selectors.parse(selector) if selector else ()
    query = _known(state).add_columns(
        _Target.id,
        _Target.labels,
        _Target.last_seen_at,
        _Target.deployment_id,
        models.Execution.reason,
        *([_Target.presence] if requirements else []),
    )
    for row in session.execute(query.where(*where).order_by(_Target.id)).yield_per(500):
        if not requirements or selectors.matches(requirements, selectors.known(row.labels, row.presence)):
            yield row, 1


def _known(state: State) -> Select[Any]:
    """What flags are made from, and the model: columns in which many targets are alike."""
    execution, bundle, rollout, said = models.Execution, models.Bundle, models.Rollout, _Target.presence
    alarms = _alarms()
    return (
        select(
            _Target.last_seen_at.is_not(None).label("was_seen"),
            func.coalesce(_Target.last_seen_at >= state.online_since, false()).label("is_online"),
            func.coalesce(said["stale"].as_boolean(), false()).label("is_stale"),
            _Target.held_at.is_not(None).label("is_held"),
            or_(
                _Target.rollout_id.is_(None), func.coalesce(bundle.digest == _Target.actual_digest, false())
            ).label("in_sync"),
            func.coalesce(alarms.c.features, 0).label("drift_alarms"),
            execution.state.label("step"),
            said["model"].as_string().label("model"),
            said["version"].as_string().label("version"),
        )
        .select_from(_Target)
        .outerjoin(
            execution,
            and_(execution.target_id == _Target.id, execution.generation == _Target.generation),
        )
        .outerjoin(rollout, rollout.id == _Target.rollout_id)
        .outerjoin(bundle, bundle.id == rollout.bundle_id)
        .outerjoin(alarms, and_(alarms.c.scope_id == _Target.id, alarms.c.digest == _Target.actual_digest))
    )


def _alarms() -> Subquery:
    """How many features of a target drift, under the model that they were judged with."""
    drift = models.Drift
    return (
        select(drift.scope_id, drift.digest, func.count().label("features"))
        .where(drift.scope == "target", drift.alarm.is_(True))
        .group_by(drift.scope_id, drift.digest)
        .subquery()
    )


def _facts(row: Any) -> health.Facts:
    return health.Facts(
        was_seen=row.was_seen,
        is_online=row.is_online,
        is_stale=row.is_stale,
        is_held=row.is_held,
        in_sync=row.in_sync,
        drift_alarms=row.drift_alarms,
        step=Step(row.step) if row.step else None,
    )
