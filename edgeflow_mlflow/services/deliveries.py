"""The outbox: claim what is due, send it, and note what came of it. The hub does, each write under its fence.

A row is claimed before it is sent and marked after the receiver's 2xx. Who dies in between leaves a claim
that ends by itself; the next try carries the same delivery id.
"""

from __future__ import annotations

import logging
from datetime import datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from edgeflow_agent import typed
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import deliveries, notifications
from edgeflow_mlflow.domain.alerts import Phase
from edgeflow_mlflow.domain.notifications import Notification
from edgeflow_mlflow.services import counters, mailing, posting, receivers, telling
from edgeflow_mlflow.services.posting import Reply
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)

WAITING, SENT, GIVEN_UP = "waiting", "sent", "given_up"
# A row's turn is when all before it, of the same group, are sent or given up.
_Earlier = aliased(models.Delivery)


def waiting(state: State) -> list[str]:
    """The receivers for which something is due."""
    with state.database.read() as session:
        due = session.scalars(
            select(models.Delivery.receiver)
            .where(models.Delivery.state == WAITING, models.Delivery.next_at <= state.now())
            .distinct()
        ).all()
        forwarding = [row.name for row in _to_forward(session, state.now())]
    return sorted({*due, *forwarding})


def send_next(state: State, name: str) -> bool:
    """Send what is due next for a receiver; whether there was something."""
    claimed = _claim(state, name)
    if claimed is None:
        return False
    delivery, receiver = claimed
    reply = send(state, receiver, delivery.delivery_id, delivery.body)
    _finish(state, delivery.id, reply)
    return True


def _claim(state: State, name: str) -> tuple[models.Delivery, models.Receiver] | None:
    now = state.now()
    row = models.Delivery
    earlier = (
        select(_Earlier.id)
        .where(
            _Earlier.receiver == row.receiver,
            _Earlier.group_key == row.group_key,
            _Earlier.state == WAITING,
            _Earlier.id < row.id,
        )
        .exists()
    )
    with state.database.write() as session:
        receiver = session.get(models.Receiver, name)
        if receiver is None:
            return None
        delivery = session.scalars(
            select(row)
            .where(row.receiver == name, row.state == WAITING, row.next_at <= now, ~earlier)
            .order_by(row.id)
            .limit(1)
            .with_for_update()
        ).first()
        if delivery is None:
            return None
        delivery.attempts += 1
        delivery.next_at = now + deliveries.LEASE
        return delivery, receiver


def _finish(state: State, delivery_id: int, reply: Reply) -> None:
    now = state.now()
    with state.database.write() as session:
        row = session.get(models.Delivery, delivery_id, with_for_update=True)
        if row is None or row.state != WAITING:
            return
        row.error = "" if reply.delivered else reply.text[:1000]
        if reply.delivered:
            row.state, row.ended_at, outcome = SENT, now, "sent"
        elif deliveries.is_hopeless(row.created_at, now):
            row.state, row.ended_at, outcome = GIVEN_UP, now, "given_up"
            logger.error(
                "%s was not told %r in a day, which is given up: %s",
                row.receiver,
                row.title,
                row.error,
                extra={"action": "delivery_given_up"},
            )
        else:
            row.next_at = now + deliveries.wait(row.attempts, reply.retry_after_s)
            outcome = "failed"
            logger.warning(
                "%s was not told %r: %s; next try at %s", row.receiver, row.title, row.error, row.next_at
            )
        counters.add(session, counters.DELIVERIES, {"outcome": outcome}, 1)


def send(state: State, receiver: models.Receiver, delivery_id: str, body: bytes) -> Reply:
    """Send a body to a receiver, and say what came back."""
    secrets = receivers.secrets(state, receiver)
    if secrets is None:
        return Reply(
            delivered=False,
            text="it was sealed with keys that this server no longer has: give the receiver its url, "
            "secret or password again",
        )
    allow_private: bool = state.config["notifications.allow_private"]
    if receiver.kind == "email":
        content = typed.read(dict[str, str], body)
        return mailing.send(
            receiver.settings, secrets.password, delivery_id, content, allow_private=allow_private
        )
    timestamp = str(int(state.now().timestamp()))
    headers = posting.headers(secrets.secret, delivery_id, timestamp, body)
    return posting.post(secrets.url, body, headers, allow_private=allow_private)


def send_trial(state: State, receiver: models.Receiver, told: Notification, delivery_id: str) -> Reply:
    """Try a receiver out, now and once, past the outbox."""
    if receiver.kind == "alertmanager":
        content = notifications.forwarded(told.alerts, state.now(), told.external_url)
        return send(state, receiver, delivery_id, msgspec.json.encode(content))
    return send(state, receiver, delivery_id, telling.body(receiver.kind, told))


# ---- forwarding to an Alertmanager


def _to_forward(session: Session, now: datetime) -> list[models.Receiver]:
    """Alertmanagers that were told long ago, or before something changed."""
    rows = session.scalars(select(models.Receiver).where(models.Receiver.kind == "alertmanager")).all()
    if not rows:
        return []
    changed = session.scalar(
        select(models.Alert.updated_at)
        .where(models.Alert.phase.in_([Phase.FIRING.value, Phase.RESOLVED.value]))
        .order_by(models.Alert.updated_at.desc())
        .limit(1)
    )
    return [
        row
        for row in rows
        if row.forwarded_at is None
        or row.forwarded_at <= now - notifications.FORWARD_EVERY
        or (changed is not None and changed > row.forwarded_at and not row.forward_error)
    ]


def forward(state: State, name: str) -> None:
    """Tell an Alertmanager all that fires and what ended lately. It is told again and again, so that it knows
    when nobody speaks any more; there is no outbox for it."""
    now = state.now()
    with state.database.read() as session:
        if name not in [row.name for row in _to_forward(session, now)]:
            return
        receiver = session.get_one(models.Receiver, name)
        alert = models.Alert
        rows = session.scalars(
            select(alert)
            .where(
                (alert.phase == Phase.FIRING.value)
                | (alert.resolved_at > now - notifications.FORWARD_RESOLVED)
            )
            .order_by(alert.id)
        ).all()
        muted = telling.Muted(state, session, [row for row in rows if row.phase == Phase.FIRING])
        routes = receivers.Routes(session.scalars(select(models.Receiver)).all())
        told = [
            telling.as_told(row)
            for row in rows
            if receiver in routes.of(row.labels)
            and (row.resolved_at is not None or not muted.mutes(row.labels))
        ]
    error = ""
    outcome = "sent"
    if told:
        content = notifications.forwarded(told, now, state.config["notifications.external_url"])
        reply = send(state, receiver, f"{name}-{int(now.timestamp())}", msgspec.json.encode(content))
        if not reply.delivered:
            error, outcome = reply.text[:1000], "failed"
            logger.warning("%s was not told of %d alerts: %s", name, len(told), error)
    with state.database.write() as session:
        row = session.get(models.Receiver, name)
        if row is None:
            return
        row.forwarded_at, row.forward_error = now, error
        if told:
            counters.add(session, counters.DELIVERIES, {"outcome": outcome}, 1)
