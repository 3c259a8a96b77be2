"""Bind a model to targets, move the binding to another version, end it. Each is one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_agent.wire import topics
from edgeflow_agent.wire.documents import Action
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import rollouts
from edgeflow_mlflow.services import advance, audit, desired, fleets, revisions, strategy
from edgeflow_mlflow.services.revisions import What
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
    given = settings or {}
    strategy.check(given)
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
            settings=_kept(given),
            rollout_id="",
            created_at=now,
            created_by=actor,
            updated_at=now,
        )
        session.add(deployment)
        session.flush()
        targets = _locked(session, _resolve(session, where))
        _check_free(session, deployment, targets, replace=replace)
        rollout = revisions.begin(
            state,
            session,
            deployment,
            what,
            targets,
            settings=given,
            reason="created",
            actor=actor,
        )
        advance.advance(state, session, rollout)
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
        settings = _merged(deployment.settings, change.settings)
        strategy.check(settings)
        what = change.what
        if what is None and _without_strategy(settings) != _without_strategy(deployment.settings):
            what = What(bundle_id=rollout.bundle_id, model_uri=rollout.model_uri, alias=deployment.alias)
        if what is None and change.where is None and _kept(settings) == deployment.settings:
            raise errors.InvalidError("nothing to update: give a model, targets, runtime or trial settings")
        before = {target.id for target in bound(session, deployment)}
        wanted_ids = _wanted(session, deployment, change.where, before)
        locked = _locked(session, before | wanted_ids)
        wanted = [target for target in locked if target.id in wanted_ids]
        if change.where is None and not change.replace:
            # Nobody said where anew: what another deployment has taken over meanwhile stays with it.
            wanted = [target for target in wanted if target.deployment_id in (None, deployment.id)]
        _check_free(session, deployment, wanted, replace=change.replace)
        leaving = [
            target
            for target in locked
            if target.deployment_id == deployment.id and target.id not in wanted_ids
        ]
        if leaving:
            let_go(state, session, deployment, leaving, Action.REMOVE)
        deployment.settings = _kept(settings)
        deployment.updated_at = state.now()
        if what is None:
            join(state, session, deployment, [t for t in wanted if t.deployment_id != deployment.id])
        else:
            deployment.alias = what.alias
            deployment.model_name = session.get_one(models.Bundle, what.bundle_id).model_name
            rollout = revisions.begin(
                state,
                session,
                deployment,
                what,
                wanted,
                settings=settings,
                reason=change.reason,
                actor=actor,
            )
            advance.advance(state, session, rollout)
    return deployment


def join(
    state: State, session: Session, deployment: models.Deployment, targets: Sequence[models.Target]
) -> None:
    """Let targets, which the caller has locked, follow what the deployment does now: they get its model with
    the wave that is under way, or at once where the rollout has reached everybody. Where it was given up they
    get nothing before the next one."""
    rollout = session.get_one(models.Rollout, deployment.rollout_id, with_for_update=desired.LOCK)
    revisions.join(session, rollout, targets)
    if rollout.state == rollouts.State.SUCCEEDED:
        advance.assign(state, session, rollout, [target for target in targets if target.held_at is None])
    else:
        advance.advance(state, session, rollout)


def _merged(
    old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    return {group: {**old.get(group, {}), **new.get(group, {})} for group in {**old, **new}}


def _kept(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the next rollout of the deployment begins with: all but what was said for one of them."""
    return {
        group: {
            name: value
            for name, value in given.items()
            if group != strategy.GROUP or name not in strategy.ONCE
        }
        for group, given in settings.items()
    }


def _without_strategy(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How to go is no reason to go."""
    return {group: given for group, given in settings.items() if group != strategy.GROUP and given}


def delete(state: State, name: str, *, keep_serving: bool, actor: str) -> models.Deployment:
    """End a deployment. Its devices stop serving, or keep what they have and are free for another."""
    with state.database.write() as session:
        deployment = get(session, name, lock=True)
        locked = desired.lock(session, [target.id for target in bound(session, deployment)])
        targets = [target for target in locked if target.deployment_id == deployment.id]
        let_go(state, session, deployment, targets, Action.HOLD if keep_serving else Action.REMOVE)
        why = "the deployment was deleted"
        revisions.end_open(state, session, deployment, rollouts.Event.ABORT, why, actor=actor)
        audit.note(state, session, actor=actor, action="deployment.delete", subject=deployment.name, why=why)
        deployment.live_name = None
        deployment.deleted_at = state.now()
    return deployment


def find(session: Session, name: str, *, lock: bool = False) -> models.Deployment | None:
    """The living deployment of that name; locked, so that two changes of it come one after the other."""
    query = select(models.Deployment).where(models.Deployment.live_name == name)
    return session.scalars(query.with_for_update(key_share=True) if lock else query).first()


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


def let_go(
    state: State,
    session: Session,
    deployment: models.Deployment,
    targets: Sequence[models.Target],
    action: Action,
) -> None:
    """Tell targets, which the caller has locked, to stop serving or to keep what they have; they are free."""
    revisions.leave(session, deployment.rollout_id, [target.id for target in targets])
    rollout = session.get_one(models.Rollout, deployment.rollout_id)
    bundle = session.get_one(models.Bundle, rollout.bundle_id)
    desired.assign(
        state,
        session,
        targets,
        desired.Assignment(deployment=deployment, rollout=rollout, bundle=bundle, action=action),
    )
