"""Deployments follow the labels: who comes to a fleet gets its model, who leaves it is free."""

from __future__ import annotations

from sqlalchemy import select

from edgeflow_agent.wire.documents import Action
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import selectors
from edgeflow_mlflow.services import audit, deploy, desired, fleets
from edgeflow_mlflow.services.state import State


def follow(state: State) -> None:
    """One look at every deployment of a fleet or selector. Who leaves keeps serving what it has: a changed
    label is no order to stop, and another deployment may take it at once."""
    with state.database.read() as session:
        following = session.scalars(
            select(models.Deployment).where(
                models.Deployment.live_name.is_not(None),
                (models.Deployment.fleet != "") | (models.Deployment.selector != ""),
            )
        ).all()
        if not following:
            return
        known = session.execute(
            select(
                models.Target.id, models.Target.labels, models.Target.presence, models.Target.deployment_id
            )
        ).all()
        labels = {name: selectors.known(given, said) for name, given, said, _ in known}
        held = {name: deployment for name, _, _, deployment in known}
        wanted = {row.id: _members(session.get(models.Fleet, row.fleet), row, labels) for row in following}
    for row in following:
        joining = [name for name in sorted(wanted[row.id]) if held[name] is None]
        leaving = [name for name, holder in held.items() if holder == row.id and name not in wanted[row.id]]
        if joining or leaving:
            _change(state, row.id, joining, leaving)
            held |= dict.fromkeys(joining, row.id) | dict.fromkeys(leaving)


def _members(
    fleet: models.Fleet | None, deployment: models.Deployment, labels: dict[str, dict[str, str]]
) -> set[str]:
    if fleet is not None and not fleet.selector:
        return set(fleet.targets) & labels.keys()
    selector = fleet.selector if fleet is not None else deployment.selector
    if not selector:
        return set()
    requirements = selectors.parse(selector)
    return {name for name, given in labels.items() if selectors.matches(requirements, given)}


def _change(state: State, deployment_id: str, joining: list[str], leaving: list[str]) -> None:
    with state.database.write() as session:
        deployment = session.get_one(models.Deployment, deployment_id, with_for_update=desired.LOCK)
        if deployment.live_name is None:
            return
        locked = desired.lock(session, [*joining, *leaving])
        # Looked at again under the lock: labels and deployments may have changed meanwhile.
        now = fleets.wanted(session, deployment)
        new = [target for target in locked if target.deployment_id is None and target.id in now]
        gone = [target for target in locked if target.deployment_id == deployment.id and target.id not in now]
        if gone:
            deploy.let_go(state, session, deployment, gone, Action.HOLD)
        if new:
            deploy.join(state, session, deployment, new)
        for targets, action in ((new, "target.join"), (gone, "target.leave")):
            for target in targets:
                audit.note(
                    state,
                    session,
                    actor=audit.EDGEFLOW,
                    action=action,
                    subject=deployment.name,
                    target=target.id,
                    why=f"labels {target.labels}",
                )
