"""Silences and acknowledgements: what people say about alerts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import matchers
from edgeflow_mlflow.domain.alerts import Phase
from edgeflow_mlflow.domain.matchers import Silence
from edgeflow_mlflow.services import audit
from edgeflow_mlflow.services.state import State

MAX_SILENCES = 500
_LONGEST = timedelta(days=366)


def create(
    state: State,
    texts: Sequence[str],
    *,
    starts_at: datetime | None,
    ends_at: datetime,
    comment: str,
    actor: str,
) -> models.Silence:
    """Silence the alerts that match until a moment."""
    found = matchers.parse(texts)
    matchers.check_silence(found)
    now = state.now()
    starts_at = max(starts_at or now, now)
    if not starts_at < ends_at <= now + _LONGEST:
        raise errors.InvalidError("a silence ends after it begins and after now, and within a year")
    row = models.Silence(
        id=uuid.uuid4().hex,
        matchers=[str(item) for item in found],
        starts_at=starts_at,
        ends_at=ends_at,
        comment=comment,
        created_at=now,
        created_by=actor,
    )
    with state.database.write() as session:
        count = session.scalar(
            select(func.count()).select_from(models.Silence).where(models.Silence.ends_at > now)
        )
        if (count or 0) >= MAX_SILENCES:
            raise errors.ConflictError(f"there are {MAX_SILENCES} silences already; end one first")
        session.add(row)
        _note(state, session, "silence.create", row, actor)
    return row


def expire(state: State, silence_id: str, *, actor: str) -> models.Silence:
    """End a silence now; one that has ended stays as it is."""
    with state.database.write() as session:
        row = session.get(models.Silence, silence_id)
        if row is None:
            raise errors.NotFoundError(f"no silence {silence_id!r}; `edgeflow alerts silences` shows them")
        if row.ends_at > state.now():
            row.ends_at = state.now()
            _note(state, session, "silence.expire", row, actor)
    return row


def _note(state: State, session: Session, action: str, row: models.Silence, actor: str) -> None:
    audit.note(
        state,
        session,
        actor=actor,
        action=action,
        why=row.comment,
        detail={"silence": row.id, "matchers": row.matchers, "until": row.ends_at.isoformat()},
    )


def active(session: Session, now: datetime) -> list[Silence]:
    """Those that hold now."""
    rows = session.scalars(
        select(models.Silence).where(models.Silence.starts_at <= now, models.Silence.ends_at > now)
    )
    return [
        Silence(
            id=row.id,
            matchers=matchers.parse(row.matchers),
            starts_at=row.starts_at,
            ends_at=row.ends_at,
        )
        for row in rows
    ]


def acknowledge(state: State, alert_id: int, *, actor: str, why: str) -> models.Alert:
    """Somebody looks after an alert: nobody is reminded of it again while it lasts."""
    with state.database.write() as session:
        row = session.get(models.Alert, alert_id, with_for_update=True)
        if row is None or row.phase == Phase.PENDING:
            raise errors.NotFoundError(
                f"no alert {alert_id} fires; `edgeflow alerts list` shows those that do"
            )
        if row.phase != Phase.FIRING:
            raise errors.ConflictError(f"alert {alert_id} is {row.phase} already")
        row.acked_at, row.acked_by, row.ack_why = state.now(), actor, why
        audit.note(
            state,
            session,
            actor=actor,
            action="alert.acknowledge",
            subject=row.rule,
            target=row.target_id,
            why=why,
            detail={"alert": row.id, "fingerprint": row.fingerprint},
        )
    return row
