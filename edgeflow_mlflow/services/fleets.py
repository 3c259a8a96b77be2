"""Which targets are meant: by name, by fleet, by selector."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_agent.wire import topics
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import selectors
from edgeflow_mlflow.services import labels
from edgeflow_mlflow.services.state import State


def create(state: State, name: str, *, selector: str, targets: Sequence[str], actor: str) -> models.Fleet:
    """Name a set of targets."""
    if not topics.is_target_id(name):
        raise errors.InvalidError(f"{name!r} cannot name a fleet: use a-z, 0-9, '.', '_', '-'")
    with state.database.write() as session:
        if session.get(models.Fleet, name) is not None:
            raise errors.ConflictError(f"fleet {name!r} exists already; update it instead")
        fleet = models.Fleet(name=name, created_at=state.now(), created_by=actor)
        _define(session, fleet, selector=selector, targets=targets)
        session.add(fleet)
    return fleet


def change(state: State, name: str, *, selector: str, targets: Sequence[str]) -> models.Fleet:
    """Define a fleet anew. Deployments follow at their next update."""
    with state.database.write() as session:
        fleet = get(session, name)
        _define(session, fleet, selector=selector, targets=targets)
    return fleet


def _define(session: Session, fleet: models.Fleet, *, selector: str, targets: Sequence[str]) -> None:
    if bool(selector) == bool(targets):
        raise errors.InvalidError("a fleet has either a selector (site=lyon,arm!=left) or a list of targets")
    if selector:
        selectors.parse(selector)
    else:
        named(session, targets)
    fleet.selector = selector
    fleet.targets = list(targets)


def delete(state: State, name: str) -> None:
    """Forget a fleet; refuse while a deployment is bound to it."""
    with state.database.write() as session:
        fleet = get(session, name)
        user = session.scalars(
            select(models.Deployment.name).where(
                models.Deployment.fleet == name, models.Deployment.live_name.is_not(None)
            )
        ).first()
        if user is not None:
            raise errors.ConflictError(f"fleet {name!r} is used by deployment {user!r}; delete that first")
        session.delete(fleet)


def get(session: Session, name: str) -> models.Fleet:
    """A fleet, or NotFoundError."""
    fleet = session.get(models.Fleet, name)
    if fleet is None:
        raise errors.NotFoundError(f"no fleet {name!r}")
    return fleet


def named(session: Session, names: Sequence[str]) -> list[str]:
    """The given ids, each once, in order; NotFoundError names one that is unknown and the nearest known."""
    wanted = list(dict.fromkeys(names))
    known = set(session.scalars(select(models.Target.id).where(models.Target.id.in_(wanted))))
    for name in wanted:
        if name not in known:
            raise unknown_target(session, name)
    return wanted


def unknown_target(session: Session, name: str) -> errors.NotFoundError:
    """The error that names the nearest target that exists."""
    known = session.scalars(select(models.Target.id).limit(10_000)).all()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`edgeflow targets list` shows those that are enrolled"
    return errors.NotFoundError(f"no target {name!r}; {hint}")


def members(session: Session, fleet: models.Fleet) -> list[str]:
    """The ids of a fleet's targets now, in order."""
    if fleet.selector:
        return selected(session, fleet.selector)
    wanted = fleet.targets
    return list(
        session.scalars(
            select(models.Target.id).where(models.Target.id.in_(wanted)).order_by(models.Target.id)
        )
    )


def wanted(session: Session, deployment: models.Deployment) -> set[str]:
    """The ids of the targets that a deployment of a fleet or a selector is to hold now."""
    if deployment.fleet:
        fleet = session.get(models.Fleet, deployment.fleet)
        return set() if fleet is None else set(members(session, fleet))
    return set(selected(session, deployment.selector)) if deployment.selector else set()


def selected(session: Session, selector: str) -> list[str]:
    """The ids of the targets that a selector picks now, in order."""
    requirements = selectors.parse(selector)
    return labels.matching(session, requirements, after="", limit=sys.maxsize)
