"""The log of decisions: who did what, when and why. Written in the transaction of what it tells of."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.services.state import State

# Who decides when nobody asked: rules that were set up before.
EDGEFLOW = "edgeflow"


def note(
    state: State,
    session: Session,
    *,
    actor: str,
    action: str,
    subject: str = "",
    target: str = "",
    rollout: int | None = None,
    why: str = "",
    detail: dict[str, Any] | None = None,
) -> None:
    """Add one entry. `action` is a word such as `rollout.pause`; `subject` the deployment or fleet."""
    session.add(
        models.Audit(
            at=state.now(),
            actor=actor,
            action=action,
            subject=subject,
            target_id=target,
            rollout=rollout,
            why=why,
            detail=detail or {},
        )
    )
