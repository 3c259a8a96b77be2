"""Bind a model to targets, move the binding to another version, end it. Each is one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeflow_agent.wire import topics
from edgeflow_agent.wire.documents import Action
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import desired, fleets
from edgeflow_mlflow.services.state import State


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which targets: exactly one of the three."""

    targets: tuple[str, ...] = ()
    fleet: str = ""
    selector: str = ""

    def __bool__(self) -> bool:
        return bool(self.targets or self.fleet or self.selector)


@dataclass(frozen=True, kw_only=True)
class What:
    """Which model: a published bundle, the URI that was asked for, and the alias to follow."""

    bundle_id: str
    model_uri: str
    alias: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is to be different; what is None or empty stays as it is.

    `settings` are merged key by key into what the deployment has. `expected_rollout` makes the change
    depend on the rollout that the caller has seen.
    """

    where: Where | None = None
    what: What | None = None
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    replace: bool = False
    reason: str = "updated"
    expected_rollout: str = ""


def create(
    state: State,
    name: str,
    *,
    where: Where,
    what: What,
    settings: dict[str, dict[str, Any]] | None = None,
    replace: bool = False,
    actor: str,
) -> models.Deployment:
    """A new deployment and its first rollout."""
    if not topics.is_target_id(name):
        raise errors.InvalidError(
            f"{name!r} cannot name a deployment: use 1 to 63 of a-z, 0-9, '.', '_', '-'"
        )
    now = state.now()
    with state.database.write() as session:
        if find(session, name) is not None:
            raise errors.ConflictError(
                f"deployment {name!r} exists already; `mlflow deployments update -t edgeflow --name {name}` "
                "moves it to another model version"
            )
        bundle = session.get_one(models.Bundle, what.bundle_id)
        deployment = models.Deployment(
            id=uuid.uuid4().hex,
            name=name,
            live_name=name,
            fleet=where.fleet,
            selector=where.selector,
            alias=what.alias,
            model_name=bundle.model_name,
            settings=settings or {},
            rollout_id="",
            created_at=now,
            created_by=actor,
            updated_at=now,
        )
        session.add(deployment)
        session.flush()
        targets = _locked(session, _resolve(session, where))
        _check_free(session, deployment, targets, replace=replace)
        rollout = _new_rollout(state, session, deployment, what, reason="created", actor=actor)
        desired.assign(
            state,
            session,
            targets,
            desired.Assignment(deployment=deployment, rollout=rollout, bundle=bundle),
        )
    return deployment


def update(state: State, name: str, change: Change, *, actor: str) -> models.Deployment:
    """Move a deployment to another model, other settings or other targets.

    Targets that stay and need nothing new are left alone; those that leave are told to stop serving.
    """
    with state.database.write() as session:
        deployment = get(session, name, lock=True)
        rollout = session.get_one(models.Rollout, deployment.rollout_id)
        if change.expected_rollout not in ("", rollout.id):
            raise errors.ChangedError(f"deployment {name!r} was changed meanwhile; look at it again")
        settings = {
            group: {**deployment.settings.get(group, {}), **change.settings.get(group, {})}
            for group in {**deployment.settings, **change.settings}
        }
        what = change.what
        if what is None and settings != deployment.settings:
            what = What(bundle_id=rollout.bundle_id, model_uri=rollout.model_uri, alias=deployment.alias)
        if what is None and change.where is None:
            raise errors.InvalidError("nothing to update: give a model, targets, runtime or trial settings")
        before = {target.id for target in bound(session, deployment)}
        wanted_ids = _wanted(session, deployment, change.where, before)
        locked = _locked(session, before | wanted_ids)
        wanted = [target for target in locked if target.id in wanted_ids]
        if change.where is None and not change.replace:
            # Nobody said where anew: what another deployment has taken over meanwhile stays with it.
            wanted = [target for target in wanted if target.deployment_id in (None, deployment.id)]
        _check_free(session, deployment, wanted, replace=change.replace)
        changed = [target for target in wanted if target.deployment_id != deployment.id]
        leaving = [
            target
            for target in locked
            if target.deployment_id == deployment.id and target.id not in wanted_ids
        ]
        if leaving:
            _let_go(state, session, deployment, leaving, Action.REMOVE)
        if what is not None:
            deployment.alias = what.alias
            deployment.settings = settings
            rollout = _new_rollout(state, session, deployment, what, reason=change.reason, actor=actor)
            changed = wanted
        bundle = session.get_one(models.Bundle, rollout.bundle_id)
        deployment.model_name = bundle.model_name
        deployment.updated_at = state.now()
        desired.assign(
            state,
            session,
            changed,
            desired.Assignment(deployment=deployment, rollout=rollout, bundle=bundle),
        )
    return deployment


def delete(state: State, name: str, *, keep_serving: bool) -> models.Deployment:
    """End a deployment. Its devices stop serving, or keep what they have and are free for another."""
    with state.database.write() as session:
        deployment = get(session, name, lock=True)
        locked = desired.lock(session, [target.id for target in bound(session, deployment)])
        targets = [target for target in locked if target.deployment_id == deployment.id]
        _let_go(state, session, deployment, targets, Action.HOLD if keep_serving else Action.REMOVE)
        deployment.live_name = None
        deployment.deleted_at = state.now()
    return deployment


def find(session: Session, name: str, *, lock: bool = False) -> models.Deployment | None:
    """The living deployment of that name; locked, so that two changes of it come one after the other."""
    query = select(models.Deployment).where(models.Deployment.live_name == name)
    return session.scalars(query.with_for_update() if lock else query).first()


def get(session: Session, name: str, *, lock: bool = False) -> models.Deployment:
    """The living deployment of that name, or NotFoundError."""
    deployment = find(session, name, lock=lock)
    if deployment is None:
        raise errors.NotFoundError(
            f"no deployment {name!r}; `mlflow deployments list -t edgeflow` shows them"
        )
    return deployment


def bound(session: Session, deployment: models.Deployment) -> list[models.Target]:
    """The targets that a deployment holds now."""
    return list(
        session.scalars(
            select(models.Target)
            .where(models.Target.deployment_id == deployment.id)
            .order_by(models.Target.id)
        )
    )


def _resolve(session: Session, where: Where) -> list[str]:
    given = [word for word in (where.targets, where.fleet, where.selector) if word]
    if len(given) != 1:
        raise errors.InvalidError(
            "say where to deploy with exactly one of target (-C target=robot-07), targets, fleet or selector"
        )
    if where.targets:
        return fleets.named(session, where.targets)
    if where.fleet:
        found, words = fleets.members(session, fleets.get(session, where.fleet)), f"fleet {where.fleet!r}"
    else:
        found, words = fleets.selected(session, where.selector), f"selector {where.selector!r}"
    if not found:
        raise errors.InvalidError(f"{words} holds no target; `edgeflow targets list` shows labels")
    return found


def _wanted(
    session: Session, deployment: models.Deployment, where: Where | None, present: set[str]
) -> set[str]:
    """The targets that the deployment is to hold, as said now or as said before."""
    if where is not None:
        wanted = set(_resolve(session, where))
        deployment.fleet, deployment.selector = where.fleet, where.selector
        return wanted
    if deployment.fleet or deployment.selector:
        return set(_resolve(session, Where(fleet=deployment.fleet, selector=deployment.selector)))
    return present


def _locked(session: Session, ids: Collection[str]) -> list[models.Target]:
    locked = desired.lock(session, ids)
    for name in sorted(set(ids) - {target.id for target in locked}):
        raise fleets.unknown_target(session, name)  # deleted at this very moment
    return locked


def _check_free(
    session: Session,
    deployment: models.Deployment,
    targets: Sequence[models.Target],
    *,
    replace: bool,
) -> None:
    """Refuse targets that another deployment holds, unless they are to be taken over."""
    for target in targets:
        if target.deployment_id in (None, deployment.id):
            continue
        holder = session.get_one(models.Deployment, target.deployment_id)
        if not replace:
            raise errors.ConflictError(
                f"target {target.id!r} belongs to deployment {holder.name!r}: update or delete that one, "
                "or take its targets over with -C replace=true"
            )


def _new_rollout(
    state: State, session: Session, deployment: models.Deployment, what: What, *, reason: str, actor: str
) -> models.Rollout:
    last = session.scalar(
        select(func.max(models.Rollout.number)).where(models.Rollout.deployment_id == deployment.id)
    )
    rollout = models.Rollout(
        id=uuid.uuid4().hex,
        deployment_id=deployment.id,
        number=(last or 0) + 1,
        bundle_id=what.bundle_id,
        model_uri=what.model_uri,
        settings=deployment.settings,
        reason=reason,
        created_at=state.now(),
        created_by=actor,
    )
    session.add(rollout)
    deployment.rollout_id = rollout.id
    session.flush()
    return rollout


def _let_go(
    state: State,
    session: Session,
    deployment: models.Deployment,
    targets: Sequence[models.Target],
    action: Action,
) -> None:
    rollout = session.get_one(models.Rollout, deployment.rollout_id)
    bundle = session.get_one(models.Bundle, rollout.bundle_id)
    desired.assign(
        state,
        session,
        targets,
        desired.Assignment(deployment=deployment, rollout=rollout, bundle=bundle, action=action),
    )
