"""Whose telemetry is asked for: one target, the members of a fleet, a deployment's or a model version's."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import deploy, fleets


@dataclass(frozen=True, kw_only=True)
class Whose:
    """As a caller says it; what is empty is not asked for."""

    target: str = ""
    fleet: str = ""
    deployment: str = ""
    model: str = ""
    version: str = ""


def windows(session: Session, whose: Whose) -> list[ColumnElement[bool]]:
    """The conditions on stored windows. Raise InvalidError when nothing is said, NotFoundError for a name
    that does not exist."""
    row = models.Window
    found: list[ColumnElement[bool]] = []
    if whose.target:
        if session.get(models.Target, whose.target) is None:
            raise fleets.unknown_target(session, whose.target)
        found.append(row.target_id == whose.target)
    if whose.fleet:
        found.append(row.target_id.in_(fleets.members(session, fleets.get(session, whose.fleet))))
    if whose.deployment:
        found.append(row.deployment_id == deploy.get(session, whose.deployment).id)
    if whose.model:
        found.append(row.model_name == whose.model)
    if whose.version:
        if not whose.model:
            raise errors.InvalidError("a version is one of a model: give model as well")
        found.append(row.model_version == whose.version)
    if not found:
        raise errors.InvalidError("say whose: give target, fleet, deployment or model")
    return found
