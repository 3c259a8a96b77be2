"""Routes for deployments: bind a model to targets, move it, end it, ask it."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import func, select

from edgeflow_agent.wire import documents
from edgeflow_mlflow import errors
from edgeflow_mlflow.api import lineage_views, records, views
from edgeflow_mlflow.api.publishing import publish_for
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.api.targets import page_number
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import declared, deploy, revisions, strategy


def _where(place: records.Place) -> deploy.Where:
    return deploy.Where(targets=tuple(place.targets), fleet=place.fleet, selector=place.selector)


def _settings(body: records.DeploymentCreate | records.DeploymentChange) -> dict[str, dict[str, Any]]:
    groups = {
        "runtime": body.runtime,
        "trial": body.trial,
        "monitor": body.monitor,
        strategy.GROUP: body.rollout,
    }
    return {name: msgspec.to_builtins(given) for name, given in groups.items()}


def create(call: Call) -> records.DeploymentView:
    """Bind a model to targets."""
    body: records.DeploymentCreate = call.body
    with call.state.database.read() as session:
        if deploy.find(session, body.name) is not None:  # say so before copying a model
            raise errors.ConflictError(f"deployment {body.name!r} exists already; update or delete it")
    bundle, alias = publish_for(call, body.model_uri)
    deploy.create(
        call.state,
        body.name,
        where=_where(body.where),
        what=revisions.What(
            bundle_id=bundle.id, model_uri=body.model_uri, alias=alias if body.follow_alias else ""
        ),
        settings=_settings(body),
        replace=body.replace,
        actor=call.actor.name,
    )
    return _view(call, body.name)


def _view(call: Call, name: str) -> records.DeploymentView:
    with call.state.database.read() as session:
        return views.deployment(session, deploy.get(session, name))


def change(call: Call) -> records.DeploymentView:
    """Move a deployment. Settings that are absent stay as they are."""
    body: records.DeploymentChange = call.body
    name = call.path["name"]
    with call.state.database.read() as session:
        deploy.get(session, name)  # say so before copying a model
    what = None
    if body.model_uri is not None:
        bundle, alias = publish_for(call, body.model_uri)
        what = revisions.What(
            bundle_id=bundle.id, model_uri=body.model_uri, alias=alias if body.follow_alias else ""
        )
    deploy.update(
        call.state,
        name,
        deploy.Change(
            where=None if body.where is None else _where(body.where),
            what=what,
            settings=_settings(body),
            replace=body.replace,
            reason=body.reason or "updated",
        ),
        actor=call.actor.name,
    )
    return _view(call, name)


def remove(call: Call) -> records.DeploymentView:
    """End a deployment."""
    body: records.DeploymentDelete = call.body or records.DeploymentDelete()
    row = deploy.delete(call.state, call.path["name"], keep_serving=body.keep_serving, actor=call.actor.name)
    with call.state.database.read() as session:
        return views.deployment(session, session.get_one(models.Deployment, row.id))


def listing(call: Call) -> records.DeploymentList:
    """Living deployments by name."""
    query: records.PageQuery = call.query
    with call.state.database.read() as session:
        rows = session.scalars(
            select(models.Deployment)
            .where(models.Deployment.live_name > query.page_token)
            .order_by(models.Deployment.live_name)
            .limit(query.limit + 1)
        ).all()
        kept, following = views.cut(rows, query.limit, lambda row: row.name)
        return records.DeploymentList(
            deployments=[views.deployment(session, row) for row in kept], next_page_token=following
        )


def show(call: Call) -> records.DeploymentDetail:
    """A deployment, how each target stands, and where its model comes from."""
    with call.state.database.read() as session:
        row = deploy.get(session, call.path["name"])
        bundle = session.get_one(models.Bundle, session.get_one(models.Rollout, row.rollout_id).bundle_id)
        newest = (
            select(func.max(models.Execution.generation))
            .where(
                models.Execution.rollout_id == row.rollout_id,
                models.Execution.target_id == models.Target.id,
            )
            .correlate(models.Target)
            .scalar_subquery()
        )
        found = session.scalars(
            select(models.Execution)
            .join(models.Target, models.Target.id == models.Execution.target_id)
            .where(models.Execution.rollout_id == row.rollout_id, models.Execution.generation == newest)
            .order_by(models.Execution.target_id)
            .limit(10_000)
        ).all()
        return records.DeploymentDetail(
            deployment=views.deployment(session, row),
            executions=views.executions(session, found),
            interface=documents.from_builtins(documents.Interface, bundle.interface),
            lineage=lineage_views.frozen(call, bundle.lineage),
            steps=declared.steps_before(call.state, bundle),
        )


def history(call: Call) -> records.History:
    """Every rollout of a deployment, also of one that was deleted, with its executions."""
    query: records.PageQuery = call.query
    name = call.path["name"]
    with call.state.database.read() as session:
        ids = session.scalars(select(models.Deployment.id).where(models.Deployment.name == name)).all()
        if not ids:
            raise errors.NotFoundError(f"there never was a deployment {name!r}")
        rollouts = session.scalars(
            select(models.Rollout)
            .where(models.Rollout.deployment_id.in_(ids))
            .order_by(models.Rollout.created_at.desc())
            .offset(page_number(query.page_token) if query.page_token else 0)
            .limit(query.limit + 1)
        ).all()
        kept = rollouts[: query.limit]
        found = session.scalars(
            select(models.Execution)
            .where(models.Execution.rollout_id.in_([row.id for row in kept]))
            .order_by(models.Execution.created_at.desc())
            .limit(10_000)
        ).all()
        offset = page_number(query.page_token) if query.page_token else 0
        return records.History(
            deployment=name,
            rollouts=[views.rollout(session, row) for row in kept],
            executions=views.executions(session, found),
            next_page_token=str(offset + query.limit) if len(rollouts) > query.limit else "",
        )


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="POST",
        rule="/deployments",
        policy=Policy.OPERATE,
        handler=create,
        summary="Bind a model to targets",
        body=records.DeploymentCreate,
        answer=records.DeploymentView,
        errors=(*_REFUSED, 404, 409, 422),
    ),
    Route(
        method="GET",
        rule="/deployments",
        policy=Policy.READ,
        handler=listing,
        summary="List deployments",
        query=records.PageQuery,
        answer=records.DeploymentList,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/deployments/<name>",
        policy=Policy.READ,
        handler=show,
        summary="A deployment, how each target stands, and its lineage",
        answer=records.DeploymentDetail,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="PATCH",
        rule="/deployments/<name>",
        policy=Policy.OPERATE,
        handler=change,
        summary="Move a deployment to another model, settings or targets",
        body=records.DeploymentChange,
        answer=records.DeploymentView,
        errors=(*_REFUSED, 404, 409, 422),
    ),
    Route(
        method="DELETE",
        rule="/deployments/<name>",
        policy=Policy.OPERATE,
        handler=remove,
        summary="End a deployment",
        body=records.DeploymentDelete,
        answer=records.DeploymentView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/deployments/<name>/history",
        policy=Policy.READ,
        handler=history,
        summary="Every rollout of a deployment, newest first",
        query=records.PageQuery,
        answer=records.History,
        errors=(*_REFUSED, 404),
    ),
)
