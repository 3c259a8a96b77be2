"""Rollouts, waves and decisions, from rows to what the API shows."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeflow_agent import typed
from edgeflow_mlflow.api import records, target_views, views
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import rollouts
from edgeflow_mlflow.services.state import State

WAITING = "waiting"


def progress(session: Session, row: models.Rollout) -> records.RolloutProgress:
    """A rollout wave by wave, counted by the database."""
    counts: dict[int, dict[str, int]] = {}
    held: dict[int, int] = {}
    state = func.coalesce(models.Execution.state, WAITING)
    is_held = models.Target.held_at.is_not(None)
    for wave, word, out, count in session.execute(
        select(models.RolloutMember.wave, state, is_held, func.count())
        .join(models.Target, models.Target.id == models.RolloutMember.target_id)
        .outerjoin(models.Execution, models.Execution.id == models.RolloutMember.execution_id)
        .where(models.RolloutMember.rollout_id == row.id)
        .group_by(models.RolloutMember.wave, state, is_held)
    ):
        if out and word == WAITING:
            held[wave] = held.get(wave, 0) + count
        else:
            found = counts.setdefault(wave, {})
            found[word] = found.get(word, 0) + count
    waves = session.scalars(
        select(models.RolloutWave)
        .where(models.RolloutWave.rollout_id == row.id)
        .order_by(models.RolloutWave.number)
    )
    bundle = session.get_one(models.Bundle, row.bundle_id)
    return records.RolloutProgress(
        deployment=session.get_one(models.Deployment, row.deployment_id).name,
        number=row.number,
        state=row.state,
        why=row.why,
        model=bundle.model_name,
        version=bundle.model_version,
        wave=row.wave,
        waves=[_wave(item, counts.get(item.number, {}), held.get(item.number, 0)) for item in waves],
        settings=row.settings.get("rollout", {}),
        reason=row.reason,
        returns_to=row.returns_to,
        takes_back=row.takes_back,
        created_at=row.created_at,
        created_by=row.created_by,
        finished_at=row.finished_at,
    )


def _wave(row: models.RolloutWave, counts: dict[str, int], held: int) -> records.WaveView:
    return records.WaveView(
        number=row.number,
        state=row.state,
        targets=sum(counts.values()) + held,
        waiting=counts.get(WAITING, 0),
        held=held,
        counts={word: count for word, count in counts.items() if word != WAITING},
        started_at=row.started_at,
        soak_until=row.soak_until,
        finished_at=row.finished_at,
        approved_by=row.approved_by,
        readings=[typed.convert(records.Reading, item) for item in row.readings],
    )


def members(session: Session, rows: Iterable[models.RolloutMember]) -> list[records.MemberView]:
    """Targets and their executions in a rollout."""
    rows = list(rows)
    ids = [row.execution_id for row in rows if row.execution_id]
    found = views.executions(
        session, session.scalars(select(models.Execution).where(models.Execution.id.in_(ids)))
    )
    executions = {item.id: item for item in found}
    held = set(
        session.scalars(
            select(models.Target.id).where(
                models.Target.id.in_([row.target_id for row in rows]), models.Target.held_at.is_not(None)
            )
        )
    )
    return [
        records.MemberView(
            target=row.target_id,
            wave=row.wave,
            attempts=row.attempts,
            held=row.target_id in held,
            assigned_at=row.assigned_at,
            execution=executions.get(row.execution_id or ""),
        )
        for row in rows
    ]


def audit(row: models.Audit) -> records.AuditEntry:
    """One decision."""
    return records.AuditEntry(
        id=row.id,
        at=row.at,
        actor=row.actor,
        action=row.action,
        subject=row.subject,
        target=row.target_id,
        rollout=row.rollout,
        why=row.why,
        detail=row.detail,
    )


def explanation(state: State, session: Session, target: models.Target) -> records.Explanation:
    """Why a target has what it has, told from the decisions that led there."""
    shown = target_views.one(state, session, target)
    rollout = session.get(models.Rollout, target.rollout_id) if target.rollout_id else None
    decisions = _decisions(session, target, rollout)
    return records.Explanation(
        target=shown,
        because=list(_because(session, target, shown, rollout)),
        rollout=progress(session, rollout) if rollout is not None else None,
        decisions=[audit(row) for row in decisions],
    )


def _decisions(session: Session, target: models.Target, rollout: models.Rollout | None) -> list[models.Audit]:
    about = models.Audit.target_id == target.id
    if rollout is not None:
        name = session.get_one(models.Deployment, rollout.deployment_id).name
        about = about | ((models.Audit.subject == name) & (models.Audit.rollout == rollout.number))
    return list(
        session.scalars(select(models.Audit).where(about).order_by(models.Audit.id.desc()).limit(100))
    )


def _because(
    session: Session,
    target: models.Target,
    shown: records.TargetView,
    rollout: models.Rollout | None,
) -> Iterable[str]:
    if rollout is None:
        yield f"no deployment has given {target.id} a model"
    else:
        bundle = session.get_one(models.Bundle, rollout.bundle_id)
        deployment = session.get_one(models.Deployment, rollout.deployment_id)
        model = f"{bundle.model_name} version {bundle.model_version}"
        yield (
            f"rollout {rollout.number} of deployment {deployment.name!r} brought {model}: {rollout.reason}, "
            f"by {rollout.created_by} at {rollout.created_at:%Y-%m-%d %H:%M} UTC"
        )
        member = session.get(models.RolloutMember, (rollout.id, target.id))
        if member is not None:
            yield f"it was in wave {member.wave}, attempt {member.attempts}"
        if deployment.rollout_id != rollout.id:
            newest = session.get_one(models.Rollout, deployment.rollout_id)
            why = f": {newest.why}" if newest.why else ""
            yield f"the newer rollout {newest.number} is {newest.state} and has not come to it{why}"
        elif rollout.state != rollouts.State.SUCCEEDED:
            yield f"the rollout is {rollout.state}: {rollout.why}"
    execution = shown.execution
    if execution is not None:
        told = f" ({execution.reason}: {execution.message})" if execution.reason else ""
        yield f"its last order, {execution.action}, is {execution.state}{told}"
    if target.held_at is not None:
        why = f": {target.hold_reason}" if target.hold_reason else ""
        yield f"it is held out of rollouts by {target.held_by} since {target.held_at:%Y-%m-%d %H:%M} UTC{why}"
    if rollout is not None and not shown.in_sync:
        actual = shown.actual
        serves = f"{actual.model} version {actual.version}" if actual.model else "no model"
        yield f"by its last heartbeat it serves {serves} and not what it should"
