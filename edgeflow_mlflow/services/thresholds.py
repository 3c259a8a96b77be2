"""From when on a model version counts as drifted: as usual, or as somebody has set it."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from edgeflow_agent.drift.verdict import Thresholds
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import drift
from edgeflow_mlflow.services import audit
from edgeflow_mlflow.services.state import State


def settings(session: Session, model: str, version: str) -> dict[str, Any]:
    """What was set for a model version; empty when it is judged as usual."""
    row = session.get(models.DriftThresholds, (model, version))
    return {} if row is None else row.settings


def of(session: Session, model: str, version: str) -> Thresholds:
    """What a model version is judged by."""
    return drift.thresholds(settings(session, model, version))


def put(state: State, model: str, version: str, changes: dict[str, Any], *, actor: str) -> None:
    """Judge a model version by these from now on, and by nothing that was set before."""
    drift.thresholds(changes)
    with state.database.write() as session:
        session.merge(
            models.DriftThresholds(
                model_name=model,
                model_version=version,
                settings=changes,
                updated_at=state.now(),
                updated_by=actor,
            )
        )
        audit.note(
            state,
            session,
            actor=actor,
            action="thresholds.put",
            subject=f"{model}/{version}"[:256],
            detail=changes,
        )
