"""What the hub does by the clock: hand out documents, re-issue old ones, give up on silent executions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select

from edgeflow_agent.wire.states import State as Step
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import desired
from edgeflow_mlflow.services.state import State

_BATCH = 200


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A document that its target has not been handed yet."""

    target: str
    generation: int
    document: bytes


def outgoing(state: State) -> list[Outgoing]:
    """Documents of connected targets that wait to be published: one indexed query for the whole fleet."""
    with state.database.read() as session:
        rows = session.execute(
            select(models.Target.id, models.Target.generation, models.Target.document)
            .where(
                models.Target.published_generation < models.Target.generation,
                models.Target.connected.is_(True),
                models.Target.document.is_not(None),
            )
            .limit(_BATCH)
        )
        return [Outgoing(target=row[0], generation=row[1], document=row[2] or b"") for row in rows]


def reissue_aging(state: State) -> int:
    """Sign documents again that are past half of their life; how many."""
    half = timedelta(days=state.config["devices.document_days"]) / 2
    with state.database.write() as session:
        targets = session.scalars(
            select(models.Target)
            .where(models.Target.document_expires_at < state.now() + half)
            .limit(_BATCH)
            # A target that is being given something new must not get the old again.
            .with_for_update(skip_locked=True)
        ).all()
        for target in targets:
            desired.reissue(state, session, target)
        return len(targets)


def time_out(state: State) -> int:
    """End executions whose deadline has passed; how many. Nothing is under way for ever."""
    now = state.now()
    with state.database.write() as session:
        overdue = session.scalars(
            select(models.Execution)
            .where(models.Execution.finished_at.is_(None), models.Execution.deadline_at < now)
            .limit(_BATCH)
            # What is being moved at this moment is not silent.
            .with_for_update(skip_locked=True)
        ).all()
        for execution in overdue:
            untaken = execution.state in (Step.PENDING, Step.OFFERED)
            waited = "no device took it up" if untaken else "silence"
            # One says nothing of the model, the other may.
            execution.reason = "unreached" if untaken else "deadline"
            execution.message = (
                f"{waited} since {execution.updated_at:%Y-%m-%d %H:%M} UTC, in {execution.state}"
            )
            execution.state = Step.TIMED_OUT.value
            execution.updated_at = execution.finished_at = now
            execution.deadline_at = None
        return len(overdue)


def forget_old_reports(state: State) -> None:
    """Keep the table of reports bounded, in slices so that nobody waits for the lock."""
    oldest = state.now() - timedelta(days=state.config["limits.report_days"])
    with state.database.write() as session:
        ids = session.scalars(
            select(models.DeviceReport.id).where(models.DeviceReport.received_at < oldest).limit(2000)
        ).all()
        if ids:
            session.execute(delete(models.DeviceReport).where(models.DeviceReport.id.in_(ids)))
