"""Routes for enrolment tokens."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from edgeflow_mlflow.api import records, views
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import enrol


def create(call: Call) -> records.TokenCreated:
    """Make a token; its text is shown this once."""
    body: records.TokenCreate = call.body
    issued = enrol.create_token(
        call.state,
        uses=body.uses,
        ttl=timedelta(seconds=body.ttl_s),
        labels=body.labels,
        target=body.target,
        note=body.note,
        actor=call.actor.name,
    )
    return records.TokenCreated(token=issued.text, details=views.token(issued.row))


def listing(call: Call) -> records.TokenList:
    """All tokens, without secrets."""
    query: records.PageQuery = call.query
    with call.state.database.read() as session:
        rows = session.scalars(
            select(models.EnrolmentToken)
            .where(models.EnrolmentToken.id > query.page_token)
            .order_by(models.EnrolmentToken.id)
            .limit(query.limit + 1)
        ).all()
    kept, following = views.cut(rows, query.limit, lambda row: row.id)
    return records.TokenList(tokens=[views.token(row) for row in kept], next_page_token=following)


def revoke(call: Call) -> records.Empty:
    """Make a token worthless."""
    enrol.revoke_token(call.state, call.path["token_id"])
    return records.Empty()


ROUTES = (
    Route(
        method="POST",
        rule="/tokens",
        policy=Policy.ADMIN,
        handler=create,
        summary="Create an enrolment token",
        body=records.TokenCreate,
        answer=records.TokenCreated,
        errors=(401, 403),
    ),
    Route(
        method="GET",
        rule="/tokens",
        policy=Policy.ADMIN,
        handler=listing,
        summary="List enrolment tokens",
        query=records.PageQuery,
        answer=records.TokenList,
        errors=(401, 403),
    ),
    Route(
        method="DELETE",
        rule="/tokens/<token_id>",
        policy=Policy.ADMIN,
        handler=revoke,
        summary="Revoke an enrolment token",
        answer=records.Empty,
        errors=(401, 403, 404),
    ),
)
