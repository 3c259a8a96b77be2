"""Give a target something new to be: one open execution, one signed document, one transaction."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import Action
from edgeflow_agent.wire.states import State as Step
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import projection
from edgeflow_mlflow.services.state import State


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a target is given."""

    deployment: models.Deployment
    rollout: models.Rollout
    bundle: models.Bundle
    action: Action = Action.INSTALL


def assign(state: State, session: Session, target: models.Target, work: Assignment) -> models.Execution:
    """Supersede what is under way on the target, raise its generation and sign the new document."""
    now = state.now()
    # PostgreSQL lets two writers read the same generation; the row's lock makes the second one wait.
    session.refresh(target, with_for_update=True)
    supersede(state, session, target.id, "a newer generation took over")
    target.generation = projection.next_generation(target.generation, target.actual_generation)
    target.deployment_id = None if work.action is Action.REMOVE else work.deployment.id
    execution = models.Execution(
        id=uuid.uuid4().hex,
        target_id=target.id,
        deployment_id=work.deployment.id,
        rollout_id=work.rollout.id,
        generation=target.generation,
        action=work.action.value,
        state=Step.PENDING.value,
        created_at=now,
        updated_at=now,
        deadline_at=projection.deadline(Step.PENDING, now, state.deadlines),
    )
    session.add(execution)
    _issue(state, target, describe(execution, work))
    return execution


def supersede(state: State, session: Session, target_id: str, why: str) -> None:
    """End the target's open execution, if there is one."""
    now = state.now()
    session.execute(
        update(models.Execution)
        .where(models.Execution.target_id == target_id, models.Execution.finished_at.is_(None))
        .values(
            state=Step.SUPERSEDED.value,
            reason="superseded",
            message=why,
            version=models.Execution.version + 1,
            updated_at=now,
            finished_at=now,
            deadline_at=None,
        )
    )


def reissue(state: State, session: Session, target: models.Target) -> None:
    """Sign the same wishes again, with a later expiry."""
    execution = latest_execution(session, target)
    if execution is not None:
        _issue(state, target, describe(execution, load_assignment(session, execution)))


def raise_floor(state: State, session: Session, target: models.Target, floor: int) -> bool:
    """Continue above what a device has handled, when it is ahead of a server that was restored from a
    backup; whether that was so."""
    if floor <= target.generation or not projection.is_plausible_floor(target.generation, floor):
        return False
    session.refresh(target, with_for_update=True)
    if floor <= target.generation:
        return False
    target.generation = projection.next_generation(target.generation, floor)
    execution = latest_execution(session, target)
    if execution is not None:
        execution.generation = target.generation
        _issue(state, target, describe(execution, load_assignment(session, execution)))
    return True


def latest_execution(session: Session, target: models.Target) -> models.Execution | None:
    """The execution that the target's document speaks of."""
    return session.scalars(
        select(models.Execution)
        .where(models.Execution.target_id == target.id)
        .order_by(models.Execution.generation.desc())
        .limit(1)
    ).first()


def load_assignment(session: Session, execution: models.Execution) -> Assignment:
    """What an execution was made from."""
    rollout = session.get_one(models.Rollout, execution.rollout_id)
    return Assignment(
        deployment=session.get_one(models.Deployment, execution.deployment_id),
        rollout=rollout,
        bundle=session.get_one(models.Bundle, rollout.bundle_id),
        action=Action(execution.action),
    )


def describe(execution: models.Execution, work: Assignment) -> documents.DesiredDeployment:
    """The deployment as the device reads it."""
    common: dict[str, Any] = {
        "id": work.deployment.id,
        "execution": execution.id,
        "name": work.deployment.name,
        "action": work.action,
    }
    if work.action is not Action.INSTALL:
        return documents.DesiredDeployment(**common)
    bundle, settings = work.bundle, work.rollout.settings
    return documents.DesiredDeployment(
        **common,
        model=documents.ModelRef(name=bundle.model_name, version=bundle.model_version, run_id=bundle.run_id),
        files=tuple(documents.from_builtins(documents.FileRef, item) for item in bundle.files),
        entry=bundle.entry,
        interface=documents.from_builtins(documents.Interface, bundle.interface),
        runtime=documents.from_builtins(documents.Runtime, settings.get("runtime", {})),
        trial=documents.from_builtins(documents.Trial, settings.get("trial", {})),
        monitor=documents.Monitor(baseline_sha256=bundle.baseline_sha256),
    )


def _issue(state: State, target: models.Target, deployment: documents.DesiredDeployment) -> None:
    now = state.now()
    desired = documents.DesiredState(
        fleet=state.keyring.fleet,
        target=target.id,
        generation=target.generation,
        issued_at=now,
        expires_at=now + timedelta(days=state.config["devices.document_days"]),
        deployments=(deployment,),
    )
    target.document = state.keyring.sign_desired(desired)
    target.document_expires_at = desired.expires_at
    target.published_generation = 0
