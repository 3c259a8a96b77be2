"""Store what devices say, exactly once, and move executions by it. What is returned is committed."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec
from sqlalchemy import and_, delete, func, or_, select, tuple_, update
from sqlalchemy.orm import Session

from edgeflow_agent import errors as agent_errors
from edgeflow_agent.wire import documents, states
from edgeflow_agent.wire.documents import Action
from edgeflow_agent.wire.states import State as Step
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import projection, rollouts
from edgeflow_mlflow.services import advance, counting, desired
from edgeflow_mlflow.services.lineage import serving
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)

MAX_REPORTS = 500
_KEPT_UNREADABLE = 20
_MAX_ID = 64
_Said = TypeVar("_Said", documents.Report, documents.Presence)


def reports(state: State, target_id: str, batch: Sequence[documents.Report]) -> tuple[documents.Stored, ...]:
    """Store reports and answer with their ids, new or known. Repeats change nothing."""
    if not batch:
        return ()
    for report in batch:
        if len(report.boot) > _MAX_ID or not report.boot.isprintable():
            raise agent_errors.ContractError(f"boot is at most {_MAX_ID} printable characters")
    state.database.change(target_id, lambda session: _store(state, session, target_id, batch))
    seqs: dict[str, set[int]] = defaultdict(set)
    for report in batch:
        seqs[report.boot].add(report.seq)
    return tuple(documents.Stored(boot=boot, seqs=tuple(sorted(found))) for boot, found in seqs.items())


def _store(state: State, session: Session, target_id: str, batch: Iterable[documents.Report]) -> None:
    now = state.now()
    if session.get(models.Target, target_id) is None:
        raise errors.NotFoundError(f"no target {target_id!r}")
    for report in map(_storable, batch):
        known = session.scalar(
            select(models.DeviceReport.id).where(
                models.DeviceReport.target_id == target_id,
                models.DeviceReport.boot == report.boot,
                models.DeviceReport.seq == report.seq,
            )
        )
        if known is not None:
            continue
        execution = (
            session.get(models.Execution, report.execution, with_for_update=True)
            if report.execution
            else None
        )
        if execution is not None and execution.target_id != target_id:
            execution = None
        decision = projection.decide(None if execution is None else Step(execution.state), report)
        if execution is not None and decision is projection.Decision.APPLIED:
            _apply(state, execution, report)
        elif execution is not None and decision is projection.Decision.REPEATED:
            execution.progress = report.progress
            # Why it takes so long: a trial without requests, or a robot that may not be touched now.
            execution.message = report.message or execution.message
            execution.deadline_at = projection.deadline(report.state, now, state.deadlines)
            execution.updated_at = now
        elif execution is not None and decision is projection.Decision.WAITING:
            # Not an end: documents are signed anew long before they expire. If it stays, the device's
            # clock is wrong, and this is where an operator sees it.
            execution.reason, execution.message = report.reason, report.message
        session.add(
            models.DeviceReport(
                target_id=target_id,
                boot=report.boot,
                seq=report.seq,
                execution_id=report.execution[:_MAX_ID],
                generation=report.generation,
                state=report.state.value,
                reason=report.reason,
                message=report.message,
                progress=report.progress,
                decision=decision.value,
                device_at=_aware(report),
                received_at=now,
            )
        )
        session.flush()


def _storable(record: _Said) -> _Said:
    """The record without the one character that PostgreSQL cannot store: what else it says is kept."""
    odd = {
        name: value.replace("\0", "\ufffd")
        for name in record.__struct_fields__
        if isinstance(value := getattr(record, name), str) and "\0" in value
    }
    return msgspec.structs.replace(record, **odd) if odd else record


def _aware(report: documents.Report) -> datetime | None:
    return report.at if report.at is not None and report.at.tzinfo is not None else None


def _apply(state: State, execution: models.Execution, report: documents.Report) -> None:
    """Move an execution, which the caller has locked."""
    now = state.now()
    execution.state = report.state.value
    execution.reason = report.reason
    execution.message = report.message
    execution.progress = report.progress
    execution.attempt = report.attempt
    if report.trial is not None:
        execution.trial_requests = report.trial.requests
        execution.trial_errors = report.trial.errors + report.trial.non_finite
        execution.trial_mean_s = report.trial.mean_s or None
        execution.usual_mean_s = report.trial.usual_s or None
    execution.updated_at = now
    execution.deadline_at = projection.deadline(report.state, now, state.deadlines)
    if states.is_terminal(report.state):
        execution.finished_at = now
        logger.info(
            "%s: %s of generation %d %s",
            execution.target_id,
            execution.action,
            execution.generation,
            report.state.value,
            extra={"action": "execution_ended"},
        )


def presence(state: State, target_id: str, message: documents.Presence, *, connected: bool | None) -> None:
    """Note what a device is and serves, and let it prove what reports have not yet said.

    `connected` is None when the message came over HTTP and says nothing about MQTT.
    """
    if len(message.digest) > _MAX_ID:
        raise agent_errors.ContractError("digest is a SHA-256 in hex, or empty")

    said = _storable(message)

    def note(session: Session) -> None:
        if connected and _is_nothing_new(state, session, target_id, said):
            return
        for target in desired.lock(session, [target_id]):
            _note(state, session, target, said, connected=connected)

    state.database.change(target_id, note)


def _is_nothing_new(state: State, session: Session, target_id: str, message: documents.Presence) -> bool:
    """Whether a heartbeat says what is known, and nothing waits for it: then it is noted, in one statement.
    Most of what a hub hears is this."""
    if message.kind is not documents.PresenceKind.HEARTBEAT:
        return False
    target, execution = models.Target, models.Execution
    waits = select(execution.id).where(
        execution.target_id == target_id,
        or_(
            execution.finished_at.is_(None),
            and_(execution.state == Step.TIMED_OUT.value, execution.reason == counting.UNREACHED),
        ),
    )
    noted = session.execute(
        update(target)
        .where(
            target.id == target_id,
            target.connected.is_(True),
            target.actual_digest == message.digest,
            target.previous_digest == message.previous_digest[:_MAX_ID],
            target.actual_generation == message.generation,
            target.generation >= message.generation,
            ~waits.exists(),
        )
        .values(last_seen_at=state.now(), presence=documents.to_builtins(message))
        .execution_options(synchronize_session=False)
    )
    return bool(noted.rowcount)  # type: ignore[attr-defined]


def _note(
    state: State,
    session: Session,
    target: models.Target,
    message: documents.Presence,
    *,
    connected: bool | None,
) -> None:
    now = state.now()
    if (target.actual_digest, target.presence.get("execution", "")) != (message.digest, message.execution):
        serving.note(session, target.id, digest=message.digest, execution_id=message.execution, now=now)
    target.last_seen_at = now
    target.presence = documents.to_builtins(message)
    target.actual_digest = message.digest
    target.previous_digest = message.previous_digest[:_MAX_ID]
    if projection.is_plausible_floor(target.generation, message.generation):
        target.actual_generation = message.generation
    if connected is not None:
        target.connected = connected and message.kind is not documents.PresenceKind.GOODBYE
    if message.kind is documents.PresenceKind.BIRTH:
        target.published_generation = 0  # whenever a device says hello, it gets its document
    if desired.raise_floor(state, session, target, message.generation):
        return
    execution = desired.latest_execution(session, target, locked=True)
    if execution is None:
        return
    if execution.finished_at is not None:
        if execution.state == Step.TIMED_OUT and execution.reason == counting.UNREACHED:
            _give_again(state, session, target, execution)
        return
    work = desired.load_assignment(session, execution)
    if projection.converged(
        execution=execution.id,
        generation=execution.generation,
        action=Action(execution.action),
        digest=work.bundle.digest,
        presence=message,
    ):
        proof = documents.Report(
            boot=message.boot,
            seq=0,
            execution=execution.id,
            generation=execution.generation,
            state=Step.DEPLOYED,
            reason="converged",
            message="the device's heartbeat shows that it is done",
        )
        _apply(state, execution, proof)


def _give_again(state: State, session: Session, target: models.Target, execution: models.Execution) -> None:
    """Who was not reached in time and comes back follows what its deployment does now."""
    rollout = session.get_one(models.Rollout, execution.rollout_id)
    deployment = session.get_one(models.Deployment, execution.deployment_id)
    alive = rollouts.State(rollout.state) in (rollouts.State.RUNNING, rollouts.State.SUCCEEDED)
    if (
        alive
        and deployment.rollout_id == rollout.id
        and target.deployment_id == deployment.id
        and target.held_at is None
    ):
        advance.assign(state, session, rollout, [target])


def connection(state: State, target_id: str, *, connected: bool) -> None:
    """Note that a device's MQTT connection came or went."""
    statement = update(models.Target).where(models.Target.id == target_id).values(connected=connected)
    state.database.change(target_id, lambda session: session.execute(statement))


def nobody_connected(state: State) -> None:
    """A broker that starts has no connections, whatever its predecessor's table says."""
    with state.database.write() as session:
        session.execute(
            update(models.Target).where(models.Target.connected.is_(True)).values(connected=False)
        )


def offered(state: State, handed: Mapping[str, int]) -> None:
    """Note that devices were handed the documents of these generations."""
    now = state.now()
    with state.database.write() as session:
        for target in desired.lock(session, handed):
            if target.generation == handed[target.id]:
                target.published_generation = target.generation
        session.execute(
            update(models.Execution)
            .where(
                tuple_(models.Execution.target_id, models.Execution.generation).in_(handed.items()),
                models.Execution.state == Step.PENDING.value,
            )
            .values(
                state=Step.OFFERED.value,
                updated_at=now,
                deadline_at=projection.deadline(Step.OFFERED, now, state.deadlines),
            )
        )


def unreadable(state: State, target_id: str, kind: str, payload: bytes, error: str) -> None:
    """Keep a message that cannot be read, the newest few per target."""
    with state.database.write() as session:
        session.add(
            models.Unreadable(
                target_id=target_id,
                kind=kind,
                error=error[:4096].replace("\0", "\ufffd"),
                payload=payload[:4096],
                received_at=state.now(),
            )
        )
        session.flush()
        oldest_kept = session.scalar(
            select(func.min(models.Unreadable.id)).where(
                models.Unreadable.id.in_(
                    select(models.Unreadable.id)
                    .where(models.Unreadable.target_id == target_id)
                    .order_by(models.Unreadable.id.desc())
                    .limit(_KEPT_UNREADABLE)
                )
            )
        )
        session.execute(
            delete(models.Unreadable).where(
                models.Unreadable.target_id == target_id, models.Unreadable.id < oldest_kept
            )
        )
