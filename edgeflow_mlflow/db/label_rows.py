"""Keeps the rows of edgeflow_labels as the labels of targets are, whoever writes a target."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, event, insert, inspect
from sqlalchemy.engine import Connection

from edgeflow_mlflow.db import models


def _write(_mapper: Any, connection: Connection, target: models.Target) -> None:
    if not inspect(target).attrs.labels.history.has_changes():
        return
    _forget(_mapper, connection, target)
    rows = [
        {"key": key, "value": value, "target_id": target.id} for key, value in (target.labels or {}).items()
    ]
    if rows:
        connection.execute(insert(models.Label), rows)


def _forget(_mapper: Any, connection: Connection, target: models.Target) -> None:
    connection.execute(delete(models.Label).where(models.Label.target_id == target.id))


def keep() -> None:
    """Listen to every write of a target; may be called twice."""
    for name, listener in (("after_insert", _write), ("after_update", _write), ("after_delete", _forget)):
        if not event.contains(models.Target, name, listener):
            event.listen(models.Target, name, listener)
