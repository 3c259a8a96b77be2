"""What devices have sent that was refused, counted by reason: bounded, whatever they send."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import inserting
from edgeflow_mlflow.domain import windows
from edgeflow_mlflow.services.state import State

_TABLE: Any = models.RefusedTelemetry.__table__


def note(state: State, session: Session, target_id: str, texts: Iterable[str]) -> None:
    """Count refusals of a target; each text begins with its reason and a colon."""
    newest: dict[str, str] = {}
    counts: dict[str, int] = {}
    for text in texts:
        word = windows.reason(text)
        newest[word] = text[:1024].replace("\0", "\ufffd")
        counts[word] = counts.get(word, 0) + 1
    now = state.now()
    for word in sorted(counts):
        adding = inserting(session, _TABLE).values(
            target_id=target_id,
            reason=word[:64],
            count=counts[word],
            text=newest[word],
            first_at=now,
            last_at=now,
        )
        session.execute(
            adding.on_conflict_do_update(
                index_elements=["target_id", "reason"],
                set_={
                    "count": _TABLE.c.count + adding.excluded.count,
                    "text": adding.excluded.text,
                    "last_at": adding.excluded.last_at,
                },
            )
        )


def of_target(session: Session, target_id: str) -> list[models.RefusedTelemetry]:
    """All of a target, the newest first."""
    return list(
        session.scalars(
            select(models.RefusedTelemetry)
            .where(models.RefusedTelemetry.target_id == target_id)
            .order_by(models.RefusedTelemetry.last_at.desc(), models.RefusedTelemetry.reason)
        )
    )
