"""Give targets something new to be: each one open execution, one signed document, one transaction."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from edgeflow_agent import errors as agent_errors
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import Action
from edgeflow_agent.wire.states import State as Step
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import projection
from edgeflow_mlflow.services.lineage import recalled
from edgeflow_mlflow.services.state import State

# How deployments and rollouts are locked: who adds an execution, which refers to them, need not wait.
# With the plain lock a device that comes back and the hub's look at its rollout would wait for each other.
LOCK: Any = {"key_share": True}
# A statement takes 32,766 values in SQLite, and 65,535 in PostgreSQL.
_LOCKED_AT_ONCE = 10_000


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a target is given."""

    deployment: models.Deployment
    rollout: models.Rollout
    bundle: models.Bundle
    action: Action = Action.INSTALL
    # Digests that the target is not to keep to fall back on.
    recalled: tuple[str, ...] = ()


def assign(
    state: State, session: Session, targets: Sequence[models.Target], work: Assignment
) -> dict[str, str]:
    """Supersede what is under way on the targets, raise their generations and sign the new documents. The
    new executions by target.

    The caller has locked the targets (`lock`). Raise UnprocessableError when no device would take the
    document.
    """
    now = state.now()
    work = dataclasses.replace(work, recalled=recalled.digests(session, work.bundle.model_name))
    template = describe("", work)
    _check(template)
    supersede(state, session, [target.id for target in targets], "a newer generation took over")
    executions = {}
    for target in targets:
        target.generation = projection.next_generation(target.generation, target.actual_generation)
        is_install = work.action is Action.INSTALL
        target.deployment_id = work.deployment.id if is_install else None
        target.rollout_id = work.rollout.id if is_install else None
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
        executions[target.id] = execution.id
        _issue(state, target, msgspec.structs.replace(template, execution=execution.id))
        size = len(target.document or b"")
        if size > documents.MAX_ENVELOPE_BYTES:
            raise errors.UnprocessableError(
                f"what devices would have to be told is {size} bytes, over their limit of "
                f"{documents.MAX_ENVELOPE_BYTES}: log the model with fewer or shorter labels and columns"
            )
    return executions


def lock(session: Session, ids: Iterable[str]) -> list[models.Target]:
    """Those targets that exist, in the order of their ids, locked and read as they are now.

    Always in the same order, so that two changes never wait for each other's rows.
    """
    wanted = sorted(set(ids))
    return [
        row
        for start in range(0, len(wanted), _LOCKED_AT_ONCE)
        for row in session.scalars(
            select(models.Target)
            .where(models.Target.id.in_(wanted[start : start + _LOCKED_AT_ONCE]))
            .order_by(models.Target.id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    ]


def supersede(state: State, session: Session, target_ids: Collection[str], why: str) -> None:
    """End the open executions of the targets."""
    now = state.now()
    session.execute(
        update(models.Execution)
        .where(models.Execution.target_id.in_(target_ids), models.Execution.finished_at.is_(None))
        .values(
            state=Step.SUPERSEDED.value,
            reason="superseded",
            message=why,
            updated_at=now,
            finished_at=now,
            deadline_at=None,
        )
    )


def reissue(state: State, session: Session, target: models.Target) -> None:
    """Sign the same wishes again, with a later expiry. The caller has locked the target."""
    execution = latest_execution(session, target)
    if execution is not None:
        _issue(state, target, describe(execution.id, load_assignment(session, execution)))


def raise_floor(state: State, session: Session, target: models.Target, floor: int) -> bool:
    """Continue above what a device has handled, when it is ahead of a server that was restored from a
    backup; whether that was so. The caller has locked the target."""
    if floor <= target.generation or not projection.is_plausible_floor(target.generation, floor):
        return False
    target.generation = projection.next_generation(target.generation, floor)
    execution = latest_execution(session, target)
    if execution is not None:
        execution.generation = target.generation
        _issue(state, target, describe(execution.id, load_assignment(session, execution)))
    return True


def latest_execution(
    session: Session, target: models.Target, *, locked: bool = False
) -> models.Execution | None:
    """The execution that the target's document speaks of."""
    query = (
        select(models.Execution)
        .where(models.Execution.target_id == target.id)
        .order_by(models.Execution.generation.desc())
        .limit(1)
    )
    return session.scalars(query.with_for_update() if locked else query).first()


def load_assignment(session: Session, execution: models.Execution) -> Assignment:
    """What an execution was made from."""
    rollout = session.get_one(models.Rollout, execution.rollout_id)
    bundle = session.get_one(models.Bundle, rollout.bundle_id)
    return Assignment(
        deployment=session.get_one(models.Deployment, execution.deployment_id),
        rollout=rollout,
        bundle=bundle,
        action=Action(execution.action),
        recalled=recalled.digests(session, bundle.model_name),
    )


def describe(execution_id: str, work: Assignment) -> documents.DesiredDeployment:
    """The deployment as the device reads it."""
    common: dict[str, Any] = {
        "id": work.deployment.id,
        "execution": execution_id,
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
        monitor=monitor(bundle, settings),
        recalled=work.recalled,
    )


def monitor(bundle: models.Bundle, settings: Mapping[str, Any]) -> documents.Monitor:
    """What telemetry of this bundle measures against, and how."""
    given = documents.from_builtins(documents.Monitor, settings.get("monitor", {}))
    return msgspec.structs.replace(given, baseline_sha256=bundle.baseline_sha256)


def _check(deployment: documents.DesiredDeployment) -> None:
    if deployment.action is not Action.INSTALL:
        return
    try:
        documents.check_install(deployment)
    except agent_errors.ContractError as error:
        raise errors.UnprocessableError(f"no device would take this model: {error}") from error


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
