"""From rows to what the API shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_agent.wire import documents
from edgeflow_agent.wire.states import State as Step
from edgeflow_mlflow.api import records
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import one_of
from edgeflow_mlflow.domain import rollouts, summary
from edgeflow_mlflow.services import deploy, desired
from edgeflow_mlflow.services.state import State
from edgeflow_mlflow.services.usage import Usage

T = TypeVar("T")


def cut(items: Sequence[T], limit: int, key: Callable[[T], str]) -> tuple[list[T], str]:
    """A page out of `items`, which were read one more than `limit`; and the token of the next."""
    if len(items) <= limit:
        return list(items), ""
    kept = list(items[:limit])
    return kept, key(kept[-1])


def online(state: State, last_seen_at: datetime | None) -> str:
    """online, offline or never_seen."""
    if last_seen_at is None:
        return "never_seen"
    return "online" if state.is_online(last_seen_at) else "offline"


def token(row: models.EnrolmentToken) -> records.TokenView:
    """A token without its secret."""
    return records.TokenView(
        id=row.id,
        uses=row.uses,
        uses_left=row.uses_left,
        expires_at=row.expires_at,
        labels=row.labels,
        target=row.target_id,
        note=row.note,
        created_at=row.created_at,
        created_by=row.created_by,
        revoked=row.revoked_at is not None,
    )


def executions(session: Session, rows: Iterable[models.Execution]) -> list[records.ExecutionView]:
    """Executions with the names that people know."""
    rows = list(rows)
    rollouts = _by_id(session, models.Rollout, {row.rollout_id for row in rows})
    deployments = _by_id(session, models.Deployment, {row.deployment_id for row in rows})
    return [
        records.ExecutionView(
            id=row.id,
            target=row.target_id,
            deployment=deployments[row.deployment_id].name,
            rollout=rollouts[row.rollout_id].number,
            generation=row.generation,
            action=row.action,
            state=row.state,
            reason=row.reason,
            message=row.message,
            progress=row.progress,
            created_at=row.created_at,
            updated_at=row.updated_at,
            finished_at=row.finished_at,
        )
        for row in rows
    ]


def _by_id(session: Session, kind: type[T], ids: set[str]) -> dict[str, T]:
    if not ids:
        return {}
    column = kind.id  # type: ignore[attr-defined]
    return {row.id: row for row in session.scalars(select(kind).where(one_of(session, column, ids)))}  # type: ignore[attr-defined]


def model(row: models.Bundle) -> records.Model:
    """A bundle as a model version."""
    files = [documents.from_builtins(documents.FileRef, item) for item in row.files]
    return records.Model(
        name=row.model_name,
        version=row.model_version,
        run_id=row.run_id,
        model_id=row.model_id,
        digest=row.digest,
        bytes=sum(item.size for item in files),
        files=files,
        has_baseline=bool(row.baseline_sha256),
    )


def rollout(session: Session, row: models.Rollout) -> records.RolloutView:
    """A rollout with its executions counted. Retries of one target count once: the newest speaks."""
    newest: dict[str, Step] = {}
    for target_id, step in session.execute(
        select(models.Execution.target_id, models.Execution.state)
        .where(models.Execution.rollout_id == row.id, models.Execution.action == "install")
        .order_by(models.Execution.generation)
    ):
        newest[target_id] = Step(step)
    counts = Counter(step.value for step in newest.values())
    status = summary.status(newest.values())
    if row.state == rollouts.State.PAUSED:
        status = summary.Status.PAUSED
    elif row.state == rollouts.State.RUNNING and _somebody_waits(session, row):
        status = summary.Status.RUNNING
    return records.RolloutView(
        number=row.number,
        state=row.state,
        why=row.why,
        wave=row.wave,
        model_uri=row.model_uri,
        model=model(session.get_one(models.Bundle, row.bundle_id)),
        status=status.value,
        counts=dict(counts),
        runtime=documents.from_builtins(documents.Runtime, row.settings.get("runtime", {})),
        trial=documents.from_builtins(documents.Trial, row.settings.get("trial", {})),
        monitor=desired.monitor(session.get_one(models.Bundle, row.bundle_id), row.settings),
        reason=row.reason,
        created_at=row.created_at,
        created_by=row.created_by,
    )


def _somebody_waits(session: Session, row: models.Rollout) -> bool:
    waiting = select(models.RolloutMember.target_id).where(
        models.RolloutMember.rollout_id == row.id, models.RolloutMember.assigned_at.is_(None)
    )
    return session.scalars(waiting.limit(1)).first() is not None


def deployment(session: Session, row: models.Deployment) -> records.DeploymentView:
    """A deployment with its present rollout."""
    current = rollout(session, session.get_one(models.Rollout, row.rollout_id))
    return records.DeploymentView(
        id=row.id,
        name=row.name,
        flavor="onnx",
        status=current.status,
        model_uri=current.model_uri,
        alias=row.alias,
        fleet=row.fleet,
        selector=row.selector,
        targets=[item.id for item in deploy.bound(session, row)],
        rollout=current,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
    )


def runs_on(state: State, usages: Iterable[Usage]) -> list[records.RunsOn]:
    """Where models are: a target once for each version that it is bound to."""
    bonds: dict[tuple[str, str, str], list[Usage]] = {}
    for usage in usages:
        key = (usage.target.id, usage.bundle.model_name, usage.bundle.model_version)
        bonds.setdefault(key, []).append(usage)
    return [
        records.RunsOn(
            target=target,
            model=name,
            version=version,
            desired=any(usage.desired for usage in found),
            actual=any(usage.actual for usage in found),
            fallback=any(usage.previous for usage in found),
            status=online(state, found[0].target.last_seen_at),
        )
        for (target, name, version), found in bonds.items()
    ]
