"""Targets as the API shows them, a page at a time: what they have in common is read once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from edgeflow_agent.wire import documents
from edgeflow_mlflow.api import records, views
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import one_of
from edgeflow_mlflow.services.state import State


def one(state: State, session: Session, row: models.Target) -> records.TargetView:
    """A target with what it says of itself and its newest execution."""
    return page(state, session, [row])[0]


def page(state: State, session: Session, rows: Sequence[models.Target]) -> list[records.TargetView]:
    """The same for many."""
    newest = _newest_executions(session, rows)
    shown = {item.id: item for item in views.executions(session, newest.values())}
    deployments = _pairs(
        session, models.Deployment.id, models.Deployment.name, {row.deployment_id for row in rows}
    )
    wanted = _wanted(session, {row.rollout_id for row in rows})
    runs = _runs(session, {row.actual_digest for row in rows})
    found = []
    for row in rows:
        said = _said(row)
        execution = newest.get(row.id)
        found.append(
            records.TargetView(
                id=row.id,
                labels=row.labels,
                status=views.online(state, row.last_seen_at),
                connected=row.connected,
                # With waves not always what its deployment's newest rollout brings.
                in_sync=row.rollout_id is None or row.actual_digest == wanted.get(row.rollout_id),
                deployment=deployments.get(row.deployment_id or ""),
                held_at=row.held_at,
                held_by=row.held_by,
                hold_reason=row.hold_reason,
                generation=row.generation,
                created_at=row.created_at,
                last_seen_at=row.last_seen_at,
                actual=records.Actual(
                    model=said.model,
                    version=said.version,
                    run_id=runs.get((row.actual_digest, said.model, said.version), ""),
                    digest=row.actual_digest,
                    previous_digest=said.previous_digest,
                    generation=row.actual_generation,
                    serving=said.serving,
                    stale=said.stale,
                    agent_version=said.agent_version,
                    onnxruntime_version=said.onnxruntime_version,
                    platform=said.platform,
                    hostname=said.hostname,
                    infer_url=said.infer_url,
                ),
                execution=shown.get(execution.id) if execution is not None else None,
            )
        )
    return found


def _said(row: models.Target) -> documents.Presence:
    try:
        return documents.from_builtins(documents.Presence, row.presence)
    except Exception:  # noqa: BLE001 - a target that was never seen has an empty presence
        return documents.Presence(kind=documents.PresenceKind.BIRTH, boot="")


def _newest_executions(session: Session, rows: Sequence[models.Target]) -> dict[str, models.Execution]:
    """The execution of the highest generation of each."""
    execution = models.Execution
    newest = (
        select(execution.target_id, func.max(execution.generation).label("generation"))
        .where(one_of(session, execution.target_id, [row.id for row in rows]))
        .group_by(execution.target_id)
        .subquery()
    )
    found = session.scalars(
        select(execution).join(
            newest,
            and_(execution.target_id == newest.c.target_id, execution.generation == newest.c.generation),
        )
    )
    return {row.target_id: row for row in found}


def _pairs(session: Session, key: Any, value: Any, wanted: Iterable[str | None]) -> dict[str, str]:
    ids = {item for item in wanted if item}
    return (
        dict(session.execute(select(key, value).where(one_of(session, key, ids))).tuples().all())
        if ids
        else {}
    )


def _wanted(session: Session, rollouts: Iterable[str | None]) -> dict[str, str]:
    """The digest that each rollout brings."""
    ids = {item for item in rollouts if item}
    found = session.execute(
        select(models.Rollout.id, models.Bundle.digest)
        .join(models.Bundle, models.Bundle.id == models.Rollout.bundle_id)
        .where(one_of(session, models.Rollout.id, ids))
    )
    return dict(found.tuples().all()) if ids else {}


def _runs(session: Session, digests: Iterable[str]) -> dict[tuple[str, str, str], str]:
    ids = {item for item in digests if item}
    bundle = models.Bundle
    found = session.execute(
        select(bundle.digest, bundle.model_name, bundle.model_version, bundle.run_id).where(
            one_of(session, bundle.digest, ids)
        )
    )
    return {(digest, name, version): run for digest, name, version, run in found} if ids else {}
