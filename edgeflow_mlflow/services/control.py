"""What people do to rollouts: stop, go on, go back. Each is one transaction, noted with who and why."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_agent.wire.documents import Action
from edgeflow_agent.wire.states import State as Step
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import rollouts
from edgeflow_mlflow.domain.rollouts import Event, State, WaveState
from edgeflow_mlflow.services import advance, audit, deploy, desired, fleets, revisions
from edgeflow_mlflow.services import state as services
from edgeflow_mlflow.services.lineage import recalled


class Abort(enum.StrEnum):
    """What becomes of the devices that have the new model already."""

    KEEP = "keep"
    REVERT = "revert"


def pause(state: services.State, name: str, *, actor: str, why: str) -> models.Rollout:
    """Give nobody else the model. Devices that have begun go on."""
    with state.database.write() as session:
        deployment, rollout = _present(session, name)
        _step(rollout, Event.PAUSE)
        rollout.why = f"paused by {actor}" + (f": {why}" if why else "")
        _note(state, session, deployment, rollout, "rollout.pause", actor, why)
    return rollout


def resume(state: services.State, name: str, *, actor: str, why: str) -> models.Rollout:
    """Go on. The failures so far are accepted: only those that come from now on can halt it again."""
    with state.database.write() as session:
        deployment, rollout = _present(session, name)
        _step(rollout, Event.RESUME)
        rollout.resumed_at = state.now()
        wave = session.get_one(models.RolloutWave, (rollout.id, rollout.wave))
        if wave.started_at is not None:
            # What it was doing is found out anew: whoever is still on the way is waited for.
            wave.state, wave.soak_until, wave.finished_at = WaveState.RUNNING.value, None, None
        _note(state, session, deployment, rollout, "rollout.resume", actor, why)
        advance.advance(state, session, rollout)
    return rollout


def approve(state: services.State, name: str, *, actor: str, why: str) -> models.Rollout:
    """Let the next wave begin once the present one has passed its gates."""
    with state.database.write() as session:
        deployment, rollout = _present(session, name)
        if State(rollout.state) not in rollouts.OPEN:
            raise errors.ConflictError(
                f"rollout {rollout.number} is {rollout.state}: there is nothing to approve"
            )
        wave = session.get_one(models.RolloutWave, (rollout.id, rollout.wave))
        wave.approved_at, wave.approved_by = state.now(), actor
        _note(state, session, deployment, rollout, "wave.approve", actor, why)
        advance.advance(state, session, rollout)
    return rollout


def abort(state: services.State, name: str, how: Abort, *, actor: str, why: str) -> models.Rollout:
    """End the rollout. With `keep` devices stay as they are, and what they have not begun is taken back; with
    `revert` all go back to the version before. The rollout that is then the deployment's."""
    with state.database.write() as session:
        deployment, rollout = _present(session, name)
        before = revisions.earlier(session, rollout)
        if how is Abort.REVERT and before is None:
            raise errors.ConflictError(
                f"deployment {name!r} has no version before that went well: abort with keep, or deploy one"
            )
        _step(rollout, Event.ABORT)
        rollout.finished_at = state.now()
        rollout.why = f"aborted by {actor}" + (f": {why}" if why else "")
        _note(state, session, deployment, rollout, "rollout.abort", actor, why, {"devices": how.value})
        if how is Abort.REVERT and before is not None:
            reason = f"rollout {rollout.number} was aborted" + (f": {why}" if why else "")
            return _go_back(state, session, deployment, before, reason=reason, actor=actor)
        _take_back(state, session, deployment, rollout)
    return rollout


def roll_back(
    state: services.State, name: str, number: int | None, *, actor: str, why: str
) -> models.Rollout:
    """Bring an earlier rollout's model back, that of the newest one that went well when no number is said.
    It is a rollout of its own."""
    with state.database.write() as session:
        deployment, present = _present(session, name)
        to = (
            revisions.earlier(session, present)
            if number is None
            else revisions.numbered(session, deployment, number)
        )
        if to is None:
            raise errors.ConflictError(
                f"deployment {name!r} has no version before that went well to go back to"
            )
        if to.bundle_id == present.bundle_id:
            raise errors.ConflictError(f"rollout {to.number} has the model that is deployed now")
        reason = f"back to rollout {to.number}" + (f": {why}" if why else "")
        return _go_back(state, session, deployment, to, reason=reason, actor=actor)


def hold(state: services.State, target_id: str, *, actor: str, why: str) -> None:
    """Leave a target out of rollouts until it is released. What it has begun it finishes."""
    with state.database.write() as session:
        target = _target(session, target_id)
        target.held_at, target.held_by, target.hold_reason = state.now(), actor, why
        audit.note(state, session, actor=actor, action="target.hold", target=target_id, why=why)


def release(state: services.State, target_id: str, *, actor: str, why: str) -> None:
    """Let a held target take part again; it gets what it has missed."""
    with state.database.write() as session:
        # As everywhere: the deployment first, then its targets.
        seen = session.get(models.Target, target_id)
        if seen is not None and seen.deployment_id is not None:
            session.get_one(models.Deployment, seen.deployment_id, with_for_update=desired.LOCK)
        target = _target(session, target_id)
        if target.held_at is None:
            raise errors.ConflictError(f"target {target_id!r} is not held")
        target.held_at, target.held_by, target.hold_reason = None, "", ""
        audit.note(state, session, actor=actor, action="target.release", target=target_id, why=why)
        if target.deployment_id is None:
            return
        deployment = session.get_one(models.Deployment, target.deployment_id)
        if target.rollout_id != deployment.rollout_id:
            deploy.join(state, session, deployment, [target])


def _present(session: Session, name: str) -> tuple[models.Deployment, models.Rollout]:
    deployment = deploy.get(session, name, lock=True)
    return deployment, session.get_one(models.Rollout, deployment.rollout_id, with_for_update=desired.LOCK)


def _target(session: Session, target_id: str) -> models.Target:
    for target in desired.lock(session, [target_id]):
        return target
    raise fleets.unknown_target(session, target_id)


def _step(rollout: models.Rollout, event: Event) -> None:
    rollout.state = rollouts.after(State(rollout.state), event).value


def _note(
    state: services.State,
    session: Session,
    deployment: models.Deployment,
    rollout: models.Rollout,
    action: str,
    actor: str,
    why: str,
    detail: dict[str, object] | None = None,
) -> None:
    audit.note(
        state,
        session,
        actor=actor,
        action=action,
        subject=deployment.name,
        rollout=rollout.number,
        why=why,
        detail={"wave": rollout.wave, **(detail or {})},
    )


def _go_back(
    state: services.State,
    session: Session,
    deployment: models.Deployment,
    to: models.Rollout,
    *,
    reason: str,
    actor: str,
) -> models.Rollout:
    targets = _bound(session, deployment)
    rollout = revisions.go_back(state, session, deployment, to, targets, reason=reason, actor=actor)
    return advance.advance(state, session, rollout)


def _bound(session: Session, deployment: models.Deployment) -> list[models.Target]:
    locked = desired.lock(session, [target.id for target in deploy.bound(session, deployment)])
    return [target for target in locked if target.deployment_id == deployment.id]


def _take_back(
    state: services.State, session: Session, deployment: models.Deployment, rollout: models.Rollout
) -> None:
    """Who has not taken the offer up is offered what it had before, so that it does not come to it late."""
    rows = session.execute(
        select(models.RolloutMember.target_id, models.RolloutMember.before_id)
        .join(models.Execution, models.Execution.id == models.RolloutMember.execution_id)
        .where(
            models.RolloutMember.rollout_id == rollout.id,
            models.Execution.state.in_([Step.PENDING.value, Step.OFFERED.value]),
        )
    ).all()
    before: dict[str | None, list[str]] = {}
    for target_id, before_id in rows:
        before.setdefault(before_id, []).append(target_id)
    for before_id, ids in before.items():
        locked = desired.lock(session, ids)
        _offer_again(state, session, deployment, before_id, locked)


def _is_recalled(session: Session, rollout: models.Rollout) -> bool:
    return recalled.holding(session, session.get_one(models.Bundle, rollout.bundle_id)) is not None


def _offer_again(
    state: services.State,
    session: Session,
    deployment: models.Deployment,
    before_id: str | None,
    targets: Sequence[models.Target],
) -> None:
    before = session.get(models.Rollout, before_id) if before_id else None
    # A model that another deployment brought is not this one's to give, but the device may keep it.
    is_own = (
        before is not None and before.deployment_id == deployment.id and not _is_recalled(session, before)
    )
    present = session.get_one(models.Rollout, deployment.rollout_id)
    rollout = before if before is not None and is_own else present
    work = desired.Assignment(
        deployment=deployment,
        rollout=rollout,
        bundle=session.get_one(models.Bundle, rollout.bundle_id),
        action=Action.INSTALL if is_own else Action.HOLD,
    )
    desired.assign(state, session, targets, work)
    for target in targets:
        target.deployment_id = deployment.id  # it stays a target of the deployment, with or without a model
