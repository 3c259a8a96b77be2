"""Routes for fleets."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow.api import records, views
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import fleets


def _view(session: Session, fleet: models.Fleet) -> records.FleetView:
    return records.FleetView(
        name=fleet.name,
        selector=fleet.selector,
        targets=fleets.members(session, fleet),
        created_at=fleet.created_at,
        created_by=fleet.created_by,
    )


def _show(call: Call, name: str) -> records.FleetView:
    with call.state.database.read() as session:
        return _view(session, fleets.get(session, name))


def create(call: Call) -> records.FleetView:
    """Name a set of targets."""
    body: records.FleetCreate = call.body
    fleets.create(call.state, body.name, selector=body.selector, targets=body.targets, actor=call.actor.name)
    return _show(call, body.name)


def listing(call: Call) -> records.FleetList:
    """All fleets."""
    query: records.PageQuery = call.query
    with call.state.database.read() as session:
        rows = session.scalars(
            select(models.Fleet)
            .where(models.Fleet.name > query.page_token)
            .order_by(models.Fleet.name)
            .limit(query.limit + 1)
        ).all()
        kept, following = views.cut(rows, query.limit, lambda row: row.name)
        return records.FleetList(fleets=[_view(session, row) for row in kept], next_page_token=following)


def show(call: Call) -> records.FleetView:
    """One fleet."""
    return _show(call, call.path["name"])


def change(call: Call) -> records.FleetView:
    """Define it anew."""
    body: records.FleetChange = call.body
    fleets.change(call.state, call.path["name"], selector=body.selector, targets=body.targets)
    return _show(call, call.path["name"])


def remove(call: Call) -> records.Empty:
    """Forget it."""
    fleets.delete(call.state, call.path["name"])
    return records.Empty()


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="POST",
        rule="/fleets",
        policy=Policy.OPERATE,
        handler=create,
        summary="Create a fleet",
        body=records.FleetCreate,
        answer=records.FleetView,
        errors=(*_REFUSED, 404, 409),
    ),
    Route(
        method="GET",
        rule="/fleets",
        policy=Policy.READ,
        handler=listing,
        summary="List fleets",
        query=records.PageQuery,
        answer=records.FleetList,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/fleets/<name>",
        policy=Policy.READ,
        handler=show,
        summary="One fleet and its targets",
        answer=records.FleetView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="PATCH",
        rule="/fleets/<name>",
        policy=Policy.OPERATE,
        handler=change,
        summary="Define a fleet anew",
        body=records.FleetChange,
        answer=records.FleetView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="DELETE",
        rule="/fleets/<name>",
        policy=Policy.OPERATE,
        handler=remove,
        summary="Forget a fleet",
        answer=records.Empty,
        errors=(*_REFUSED, 404, 409),
    ),
)
