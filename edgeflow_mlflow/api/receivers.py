"""Routes for receivers of notifications."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeflow_mlflow.api import records, views
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.api.targets import page_number
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain.alert_groups import Pace
from edgeflow_mlflow.services import deliveries, receivers, telling


def _views(call: Call, session: Session, rows: Sequence[models.Receiver]) -> list[records.ReceiverView]:
    delivery = models.Delivery
    due = session.execute(
        select(delivery.receiver, func.count())
        .where(delivery.state == deliveries.WAITING)
        .group_by(delivery.receiver)
    ).all()
    waiting: dict[str, int] = {name: count for name, count in due}  # noqa: C416 - rows are no pairs for mypy
    newest = select(func.max(delivery.id)).where(delivery.error != "").group_by(delivery.receiver)
    wrong = session.execute(
        select(delivery.receiver, delivery.error, delivery.state).where(delivery.id.in_(newest))
    )
    # What was sent after all is no error any more.
    failed = {name: error for name, error, state in wrong if state != deliveries.SENT}
    found = []
    for row in rows:
        secrets = receivers.secrets(call.state, row)
        found.append(
            records.ReceiverView(
                name=row.name,
                kind=row.kind,
                address=row.address,
                mail=row.settings,
                has_secret=secrets is not None and bool(secrets.secret or secrets.password),
                matchers=row.matchers,
                default=row.is_default,
                group_by=row.group_by,
                group_wait_s=row.group_wait_s,
                group_interval_s=row.group_interval_s,
                repeat_interval_s=row.repeat_interval_s,
                send_resolved=row.send_resolved,
                updated_at=row.updated_at,
                updated_by=row.updated_by,
                waiting=waiting.get(row.name, 0),
                last_error=row.forward_error or failed.get(row.name, ""),
            )
        )
    return found


def listing(call: Call) -> records.ReceiverList:
    """All receivers, in order of their names."""
    with call.state.database.read() as session:
        rows = session.scalars(select(models.Receiver).order_by(models.Receiver.name)).all()
        return records.ReceiverList(receivers=_views(call, session, rows))


def show(call: Call) -> records.ReceiverView:
    """One receiver."""
    with call.state.database.read() as session:
        return _views(call, session, [receivers.get(session, call.path["name"])])[0]


def put(call: Call) -> records.ReceiverView:
    """Make it, or put it in place of the one of that name."""
    body: records.ReceiverPut = call.body
    mail = receivers.Mail()
    if body.mail is not None:
        mail = receivers.Mail(
            host=body.mail.host,
            port=body.mail.port,
            tls=body.mail.tls,
            username=body.mail.username,
            sender=body.mail.sender,
            to=tuple(body.mail.to),
        )
    wanted = receivers.Wanted(
        kind=body.kind,
        url=body.url,
        secret=body.secret,
        password=body.password,
        mail=mail,
        matchers=body.matchers,
        is_default=body.default,
        group_by=body.group_by,
        pace=Pace(
            wait=timedelta(seconds=body.group_wait_s),
            interval=timedelta(seconds=body.group_interval_s),
            repeat=timedelta(seconds=body.repeat_interval_s),
            send_resolved=body.send_resolved,
        ),
    )
    receivers.put(call.state, call.path["name"], wanted, actor=call.actor.name)
    return show(call)


def remove(call: Call) -> records.Empty:
    """Forget it, and what waits for it."""
    receivers.delete(call.state, call.path["name"], actor=call.actor.name)
    return records.Empty()


def try_out(call: Call) -> records.TrialResult:
    """Send it a notification that says that it is none, now and once."""
    with call.state.database.read() as session:
        row = receivers.get(session, call.path["name"])
    reply = deliveries.send_trial(call.state, row, telling.trial(call.state, row), uuid.uuid4().hex)
    return records.TrialResult(delivered=reply.delivered, status=reply.status, text=reply.text)


def history(call: Call) -> records.DeliveryList:
    """What was sent to it, and what waits, the newest first."""
    query: records.PageQuery = call.query
    delivery = models.Delivery
    with call.state.database.read() as session:
        receiver = receivers.get(session, call.path["name"])
        wanted = select(delivery).where(delivery.receiver == receiver.name).order_by(delivery.id.desc())
        if query.page_token:
            wanted = wanted.where(delivery.id < page_number(query.page_token))
        rows = session.scalars(wanted.limit(query.limit + 1)).all()
        kept, following = views.cut(rows, query.limit, lambda row: str(row.id))
    found = [
        records.DeliveryView(
            delivery_id=row.delivery_id,
            reason=row.reason,
            title=row.title,
            state=row.state,
            attempts=row.attempts,
            error=row.error,
            created_at=row.created_at,
            next_at=row.next_at,
            ended_at=row.ended_at,
        )
        for row in kept
    ]
    return records.DeliveryList(deliveries=found, next_page_token=following)


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="GET",
        rule="/receivers",
        policy=Policy.READ,
        handler=listing,
        summary="Who is told of alerts, without secrets",
        answer=records.ReceiverList,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/receivers/<name>",
        policy=Policy.READ,
        handler=show,
        summary="One receiver, without secrets",
        answer=records.ReceiverView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="PUT",
        rule="/receivers/<name>",
        policy=Policy.ADMIN,
        handler=put,
        summary="Make a receiver, or change it",
        body=records.ReceiverPut,
        answer=records.ReceiverView,
        errors=(*_REFUSED, 404, 409),
    ),
    Route(
        method="DELETE",
        rule="/receivers/<name>",
        policy=Policy.ADMIN,
        handler=remove,
        summary="Forget a receiver, and what waits for it",
        answer=records.Empty,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="POST",
        rule="/receivers/<name>/test",
        policy=Policy.ADMIN,
        handler=try_out,
        summary="Send a test notification, and say what came back",
        body=records.Empty,
        answer=records.TrialResult,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/receivers/<name>/deliveries",
        policy=Policy.READ,
        handler=history,
        summary="What a receiver was told, newest first",
        query=records.PageQuery,
        answer=records.DeliveryList,
        errors=(*_REFUSED, 404),
    ),
)
