"""New rollouts of a deployment: forward to another version, or back to an earlier one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import rollouts, selectors, waves
from edgeflow_mlflow.services import audit, desired, strategy
from edgeflow_mlflow.services.lineage import recalled
from edgeflow_mlflow.services.state import State


@dataclass(frozen=True, kw_only=True)
class What:
    """Which model: a published bundle, the URI that was asked for, and the alias to follow."""

    bundle_id: str
    model_uri: str
    alias: str = ""


def begin(
    state: State,
    session: Session,
    deployment: models.Deployment,
    what: What,
    targets: Sequence[models.Target],
    *,
    settings: Mapping[str, Mapping[str, Any]],
    reason: str,
    actor: str,
    returns_to: int | None = None,
    takes_back: int | None = None,
) -> models.Rollout:
    """A new rollout over these targets, which the caller has locked; the one before it ends. Nobody has been
    given anything yet: `advance` does that. Raise ConflictError when a recall holds the model back."""
    now = state.now()
    recalled.settle(session)
    recalled.refuse(session, session.get_one(models.Bundle, what.bundle_id))
    end_open(state, session, deployment, rollouts.Event.SUPERSEDE, "a newer rollout took over", actor=actor)
    last = session.scalar(
        select(func.max(models.Rollout.number)).where(models.Rollout.deployment_id == deployment.id)
    )
    rollout = models.Rollout(
        id=uuid.uuid4().hex,
        deployment_id=deployment.id,
        number=(last or 0) + 1,
        bundle_id=what.bundle_id,
        model_uri=what.model_uri,
        settings={group: dict(given) for group, given in settings.items()},
        reason=reason,
        created_at=now,
        created_by=actor,
        state=rollouts.State.RUNNING.value,
        returns_to=returns_to,
        takes_back=takes_back,
    )
    session.add(rollout)
    session.flush()
    deployment.rollout_id = rollout.id
    _divide(state, session, rollout, targets)
    for target in targets:
        target.deployment_id = deployment.id
    audit.note(
        state,
        session,
        actor=actor,
        action="rollout.create",
        subject=deployment.name,
        rollout=rollout.number,
        why=reason,
        detail={"model_uri": what.model_uri, "targets": len(targets)},
    )
    session.flush()
    return rollout


def _divide(
    state: State, session: Session, rollout: models.Rollout, targets: Sequence[models.Target]
) -> None:
    candidates = [
        waves.Candidate(
            id=target.id,
            labels=selectors.known(target.labels, target.presence),
            online=state.is_online(target.last_seen_at),
        )
        for target in targets
    ]
    specified = waves.parse(rollout.settings.get(strategy.GROUP, {}).get("waves", ()))
    divided = waves.divide(candidates, specified, rollout.id) or [[]]
    for number, names in enumerate(divided, 1):
        session.add(
            models.RolloutWave(rollout_id=rollout.id, number=number, state=rollouts.WaveState.SCHEDULED.value)
        )
        session.add_all(
            models.RolloutMember(rollout_id=rollout.id, target_id=name, wave=number, position=position)
            for position, name in enumerate(names)
        )


def end_open(
    state: State,
    session: Session,
    deployment: models.Deployment,
    event: rollouts.Event,
    why: str,
    *,
    actor: str,
) -> None:
    """End the deployment's present rollout, if it has not ended."""
    if not deployment.rollout_id:
        return
    rollout = session.get_one(models.Rollout, deployment.rollout_id, with_for_update=desired.LOCK)
    if rollouts.State(rollout.state) not in rollouts.OPEN:
        return
    rollout.state = rollouts.after(rollouts.State(rollout.state), event).value
    rollout.finished_at, rollout.why = state.now(), why
    audit.note(
        state,
        session,
        actor=actor,
        action=f"rollout.{event.value}",
        subject=deployment.name,
        rollout=rollout.number,
        why=why,
    )


def join(session: Session, rollout: models.Rollout, targets: Sequence[models.Target]) -> None:
    """Add targets that come later to the wave that is under way: they follow it."""
    last = session.scalar(
        select(func.max(models.RolloutMember.position)).where(
            models.RolloutMember.rollout_id == rollout.id, models.RolloutMember.wave == rollout.wave
        )
    )
    position = -1 if last is None else last
    for target in targets:
        position += 1
        target.deployment_id = rollout.deployment_id
        member = session.get(models.RolloutMember, (rollout.id, target.id))
        if member is None:
            session.add(
                models.RolloutMember(
                    rollout_id=rollout.id, target_id=target.id, wave=rollout.wave, position=position
                )
            )
    session.flush()


def leave(session: Session, rollout_id: str, target_ids: Sequence[str]) -> None:
    """The rollout waits for these targets no more."""
    session.execute(
        delete(models.RolloutMember).where(
            models.RolloutMember.rollout_id == rollout_id, models.RolloutMember.target_id.in_(target_ids)
        )
    )


def earlier(session: Session, rollout: models.Rollout) -> models.Rollout | None:
    """The newest rollout before this one that went well, with another model that no recall holds back."""
    candidates = session.scalars(
        select(models.Rollout)
        .where(
            models.Rollout.deployment_id == rollout.deployment_id,
            models.Rollout.number < rollout.number,
            models.Rollout.state == rollouts.State.SUCCEEDED.value,
            models.Rollout.bundle_id != rollout.bundle_id,
        )
        .order_by(models.Rollout.number.desc())
    )
    return next(
        (
            row
            for row in candidates
            if recalled.holding(session, session.get_one(models.Bundle, row.bundle_id)) is None
        ),
        None,
    )


def numbered(session: Session, deployment: models.Deployment, number: int) -> models.Rollout:
    """One rollout of a deployment, or NotFoundError."""
    found = session.scalars(
        select(models.Rollout).where(
            models.Rollout.deployment_id == deployment.id, models.Rollout.number == number
        )
    ).first()
    if found is None:
        raise errors.NotFoundError(
            f"deployment {deployment.name!r} has no rollout {number}; "
            f"`edgeflow rollouts list {deployment.name}` shows them"
        )
    return found


def go_back(
    state: State,
    session: Session,
    deployment: models.Deployment,
    to: models.Rollout,
    targets: Sequence[models.Target],
    *,
    reason: str,
    actor: str,
) -> models.Rollout:
    """A rollout that brings the model of an earlier one back, at once, to those of the targets that are to
    serve another. The deployment stops following its alias, which would bring the other model again."""
    own = {
        row[0]: row[1]
        for row in session.execute(
            select(models.Rollout.id, models.Rollout.bundle_id).where(
                models.Rollout.id.in_({target.rollout_id for target in targets if target.rollout_id})
            )
        )
    }
    moving = [target for target in targets if own.get(target.rollout_id or "") != to.bundle_id]
    present = session.get_one(models.Rollout, deployment.rollout_id)
    settings = {group: given for group, given in to.settings.items() if group != strategy.GROUP}
    deployment.alias = ""
    deployment.model_name = session.get_one(models.Bundle, to.bundle_id).model_name
    deployment.updated_at = state.now()
    return begin(
        state,
        session,
        deployment,
        What(bundle_id=to.bundle_id, model_uri=to.model_uri),
        moving,
        settings=settings,
        reason=reason,
        actor=actor,
        returns_to=to.number,
        takes_back=present.number,
    )
