"""Routes for targets, as people see them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from edgeflow_mlflow import errors
from edgeflow_mlflow.api import records, target_views, views
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import one_of
from edgeflow_mlflow.domain import selectors
from edgeflow_mlflow.services import deploy, enrol, fleets, labels


def listing(call: Call) -> records.TargetList:
    """Targets in order of their id."""
    query: records.TargetQuery = call.query
    requirements = selectors.parse(query.selector) if query.selector else ()
    with call.state.database.read() as session:
        where = []
        if query.deployment:
            where.append(models.Target.deployment_id == deploy.get(session, query.deployment).id)
        if requirements:
            ids = labels.matching(
                session, requirements, after=query.page_token, limit=query.limit + 1, where=where
            )
            where = [one_of(session, models.Target.id, ids)]
        rows = session.scalars(
            select(models.Target)
            .options(defer(models.Target.document))
            .where(models.Target.id > query.page_token, *where)
            .order_by(models.Target.id)
            .limit(query.limit + 1)
        ).all()
        kept, following = views.cut(rows, query.limit, lambda row: row.id)
        return records.TargetList(
            targets=target_views.page(call.state, session, kept), next_page_token=following
        )


def show(call: Call) -> records.TargetView:
    """One target."""
    with call.state.database.read() as session:
        return target_views.one(call.state, session, _get(session, call))


def _get(session: Session, call: Call) -> models.Target:
    found = session.get(models.Target, call.path["target_id"])
    if found is None:
        raise fleets.unknown_target(session, call.path["target_id"])
    return found


def change(call: Call) -> records.TargetView:
    """New labels."""
    body: records.TargetChange = call.body
    with call.state.database.write() as session:
        target = _get(session, call)
        target.labels = selectors.check_labels(body.labels)
    return show(call)


def history(call: Call) -> records.ExecutionList:
    """A target's executions, newest first."""
    query: records.PageQuery = call.query
    with call.state.database.read() as session:
        target = _get(session, call)
        wanted = (
            select(models.Execution)
            .where(models.Execution.target_id == target.id)
            .order_by(models.Execution.generation.desc())
            .limit(query.limit + 1)
        )
        if query.page_token:
            wanted = wanted.where(models.Execution.generation < page_number(query.page_token))
        kept, following = views.cut(
            session.scalars(wanted).all(), query.limit, lambda row: str(row.generation)
        )
        return records.ExecutionList(executions=views.executions(session, kept), next_page_token=following)


def page_number(token: str) -> int:
    """A page token that is a number; anything else was not given out by us."""
    if not token.isascii() or not token.isdigit() or len(token) > 18:
        raise errors.InvalidError("page_token is the next_page_token of the page before")
    return int(token)


def execution(call: Call) -> records.ExecutionDetail:
    """One execution with every report of it."""
    with call.state.database.read() as session:
        row = session.get(models.Execution, call.path["execution_id"])
        if row is None:
            raise errors.NotFoundError(f"no execution {call.path['execution_id']!r}")
        found = session.scalars(
            select(models.DeviceReport)
            .where(models.DeviceReport.execution_id == row.id)
            .order_by(models.DeviceReport.id)
            .limit(1000)
        )
        return records.ExecutionDetail(
            execution=views.executions(session, [row])[0],
            reports=[
                records.ReportView(
                    state=item.state,
                    reason=item.reason,
                    message=item.message,
                    progress=item.progress,
                    generation=item.generation,
                    decision=item.decision,
                    device_at=item.device_at,
                    received_at=item.received_at,
                )
                for item in found
            ],
        )


def revoke(call: Call) -> records.TargetView:
    """Shut the device out; its history stays."""
    enrol.revoke(call.state, call.path["target_id"])
    return show(call)


def remove(call: Call) -> records.Empty:
    """Forget a target that no deployment holds, with its credentials; executions stay as history."""
    enrol.forget(call.state, call.path["target_id"])
    return records.Empty()


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="GET",
        rule="/targets",
        policy=Policy.READ,
        handler=listing,
        summary="List targets",
        query=records.TargetQuery,
        answer=records.TargetList,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/targets/<target_id>",
        policy=Policy.READ,
        handler=show,
        summary="One target",
        answer=records.TargetView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="PATCH",
        rule="/targets/<target_id>",
        policy=Policy.OPERATE,
        handler=change,
        summary="Change a target's labels",
        body=records.TargetChange,
        answer=records.TargetView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="DELETE",
        rule="/targets/<target_id>",
        policy=Policy.ADMIN,
        handler=remove,
        summary="Forget a target",
        answer=records.Empty,
        errors=(*_REFUSED, 404, 409),
    ),
    Route(
        method="GET",
        rule="/targets/<target_id>/executions",
        policy=Policy.READ,
        handler=history,
        summary="A target's executions, newest first",
        query=records.PageQuery,
        answer=records.ExecutionList,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="POST",
        rule="/targets/<target_id>/revoke",
        policy=Policy.ADMIN,
        handler=revoke,
        summary="Shut a device out",
        body=records.Empty,
        answer=records.TargetView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/executions/<execution_id>",
        policy=Policy.READ,
        handler=execution,
        summary="One execution with every report of it",
        answer=records.ExecutionDetail,
        errors=(*_REFUSED, 404),
    ),
)
