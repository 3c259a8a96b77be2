"""Recalls: written down, carried out a deployment at a time, and lifted."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import lineage, recalls
from edgeflow_mlflow.domain.recalls import Remedy
from edgeflow_mlflow.services import advance, audit, control, deploy, desired, revisions, strategy
from edgeflow_mlflow.services.lineage import recalled
from edgeflow_mlflow.services.lineage.edges import chunks
from edgeflow_mlflow.services.lineage.recall_plan import Device, Plan, bundles_named
from edgeflow_mlflow.services.state import State


def begin(state: State, found: Plan, *, why: str, actor: str) -> models.Recall:
    """Write the recall down: from this moment nothing made from the data sets is deployed."""
    if not why.strip():
        raise errors.InvalidError("say why: a recall is evidence")
    named = {item.id: item for item in found.datasets}
    with state.database.write() as session:
        # No row of a target is touched here: whoever is waited for may hold those.
        recalled.settle(session, begins=True)
        names = bundles_named(session, found.reach)
        recall = models.Recall(
            id=f"rc-{uuid.uuid4().hex[:10]}",
            datasets=sorted(named),
            any_use=found.any_use,
            digests={digest: name for digest, name, _ in names.values()},
            why=why,
            plan={
                "datasets": [
                    {"id": item.id, "name": item.name, "digest": item.digest, "content": item.content}
                    for item in found.datasets
                ],
                "versions": [
                    {
                        "model": name,
                        "version": version,
                        "way": lineage.as_rows(found.reach.way(lineage.version(name, version))),
                    }
                    for name, version in found.reach.versions()
                ],
                "alternatives": dict(found.alternatives),
            },
            created_at=state.now(),
            created_by=actor,
        )
        session.add(recall)
        audit.note(
            state,
            session,
            actor=actor,
            action="recall.begin",
            subject=recall.id,
            why=why,
            detail={"datasets": sorted(named), "targets": len(found.devices)},
        )
    adopt(state, recall.id, found)
    return recall


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one deployment has to do for a recall: its devices by remedy."""

    deployment_id: str
    goes_to: str
    by_remedy: Mapping[Remedy, Sequence[str]]


def parts(found: Plan) -> list[Part]:
    """What there is to do, a deployment at a time."""
    grouped: dict[str, dict[Remedy, list[str]]] = {}
    goes_to: dict[str, str] = {}
    for item in found.devices:
        name = item.row.deployment_id or ""
        grouped.setdefault(name, {}).setdefault(item.remedy, []).append(item.row.target_id)
        goes_to[name] = goes_to.get(name) or item.goes_to
    return [
        Part(deployment_id=name, goes_to=goes_to[name], by_remedy=remedies)
        for name, remedies in sorted(grouped.items())
    ]


def adopt(state: State, recall_id: str, found: Plan) -> None:
    """Add devices and models that the recall does not know yet."""
    with state.database.write() as session:
        recall = session.get_one(models.Recall, recall_id, with_for_update=True)
        names = bundles_named(session, found.reach)
        recall.digests = {**recall.digests, **{digest: name for digest, name, _ in names.values()}}
        known = {row.target_id for row in targets_of(session, recall_id)}
        session.add_all(_row(recall_id, item) for item in found.devices if item.row.target_id not in known)


def _row(recall_id: str, item: Device) -> models.RecallTarget:
    return models.RecallTarget(
        recall_id=recall_id,
        target_id=item.row.target_id,
        deployment_id=item.row.deployment_id or "",
        bonds=[bond.value for bond in recalls.bonds(item.stand)],
        model_name=item.model,
        model_version=item.version,
        remedy=item.remedy.value,
        goes_to=item.goes_to,
    )


def roll_out(
    state: State, recall: models.Recall, deployment_id: str, what: revisions.What, *, actor: str
) -> bool:
    """Let a deployment go to a clean version, everybody at once and off its alias; whether it had to.
    Where it goes there already, those get it who wait for their wave or fell back."""
    with state.database.write() as session:
        deployment = session.get(models.Deployment, deployment_id, with_for_update=desired.LOCK)
        if deployment is None or deployment.live_name is None:
            return False
        present = session.get_one(models.Rollout, deployment.rollout_id, with_for_update=desired.LOCK)
        locked = desired.lock(session, [target.id for target in deploy.bound(session, deployment)])
        targets = [target for target in locked if target.deployment_id == deployment.id]
        if present.bundle_id == what.bundle_id:
            behind = _behind(session, present, targets, recall)
            if behind:
                advance.assign(state, session, present, behind)
            return bool(behind)
        deployment.alias = ""
        deployment.model_name = session.get_one(models.Bundle, what.bundle_id).model_name
        deployment.updated_at = state.now()
        settings = {name: given for name, given in deployment.settings.items() if name != strategy.GROUP}
        rollout = revisions.begin(
            state,
            session,
            deployment,
            what,
            targets,
            settings=settings,
            reason=f"recall {recall.id}: {recall.why}"[:1024],
            actor=actor,
            takes_back=present.number,
        )
        advance.advance(state, session, rollout)
    return True


def _behind(
    session: Session, present: models.Rollout, targets: Sequence[models.Target], recall: models.Recall
) -> list[models.Target]:
    """Who is not to serve what the rollout brings, or serves what was recalled and is told nothing now."""
    told = _told(session, [target.id for target in targets])
    return [
        target
        for target in targets
        if target.held_at is None
        and (
            target.rollout_id != present.id
            or (target.actual_digest in recall.digests and target.id not in told)
        )
    ]


def _told(session: Session, target_ids: Sequence[str]) -> set[str]:
    """Targets with something on its way to them."""
    return {
        name
        for chunk in chunks(target_ids)
        for name in session.scalars(
            select(models.Execution.target_id).where(
                models.Execution.target_id.in_(chunk), models.Execution.finished_at.is_(None)
            )
        )
    }


def clear(state: State, deployment_id: str, target_ids: Sequence[str]) -> None:
    """Tell devices whose deployment has a clean model to serve that and to forget the tainted one: they get
    it once more, which costs those nothing that serve it already."""
    with state.database.write() as session:
        deployment = session.get(models.Deployment, deployment_id, with_for_update=desired.LOCK)
        if deployment is None or deployment.live_name is None:
            return
        rollout = session.get_one(models.Rollout, deployment.rollout_id, with_for_update=desired.LOCK)
        locked = desired.lock(session, target_ids)
        told = _told(session, target_ids)
        ours = [target for target in locked if target.rollout_id == rollout.id and target.id not in told]
        if ours:
            advance.assign(state, session, rollout, ours)


def hold(state: State, recall: models.Recall, target_ids: Sequence[str], *, actor: str) -> None:
    """Leave devices out of rollouts for which there is nothing to go to."""
    why = f"recall {recall.id}: there is no clean version to go to"
    for name in target_ids:
        try:
            control.hold(state, name, actor=actor, why=why)
        except errors.NotFoundError:
            continue  # deleted meanwhile


def failed(state: State, recall_id: str, target_ids: Sequence[str], error: str) -> None:
    """Note why devices could not be helped; empty: they could."""
    with state.database.write() as session:
        for chunk in chunks(target_ids):
            for row in session.scalars(
                select(models.RecallTarget).where(
                    models.RecallTarget.recall_id == recall_id, models.RecallTarget.target_id.in_(chunk)
                )
            ):
                row.error = error[:1000]


def get(session: Session, recall_id: str) -> models.Recall:
    """A recall, or NotFoundError."""
    found = session.get(models.Recall, recall_id)
    if found is None:
        raise errors.NotFoundError(f"no recall {recall_id!r}; `edgeflow recall list` shows them")
    return found


def lift(state: State, recall_id: str, *, actor: str, why: str) -> models.Recall:
    """Let models of the data sets be deployed again. Devices stay as they are."""
    with state.database.write() as session:
        recall = get(session, recall_id)
        if recall.lifted_at is not None:
            raise errors.ConflictError(f"recall {recall_id} was lifted already, by {recall.lifted_by}")
        recall.lifted_at, recall.lifted_by, recall.lift_why = state.now(), actor, why
        audit.note(state, session, actor=actor, action="recall.lift", subject=recall_id, why=why)
    return recall


def targets_of(session: Session, recall_id: str) -> list[models.RecallTarget]:
    """The devices that a recall found."""
    return list(
        session.scalars(
            select(models.RecallTarget)
            .where(models.RecallTarget.recall_id == recall_id)
            .order_by(models.RecallTarget.target_id)
        )
    )
