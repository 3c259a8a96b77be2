"""Routes for alerts and silences."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow import errors
from edgeflow_mlflow.api import records, views
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.api.targets import page_number
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain.alerts import Phase
from edgeflow_mlflow.services import receivers, silences
from edgeflow_mlflow.services.telling import Muted


def listing(call: Call) -> records.AlertList:
    """Alerts, the newest first."""
    query: records.AlertQuery = call.query
    alert = models.Alert
    wanted = select(alert).order_by(alert.id.desc()).limit(query.limit + 1)
    if query.phase in ("pending", "firing", "resolved"):
        wanted = wanted.where(alert.phase == query.phase)
    elif not query.phase:
        wanted = wanted.where(alert.live.is_not(None))
    for column, value in (
        (alert.severity, query.severity),
        (alert.rule, query.rule),
        (alert.target_id, query.target),
    ):
        if value:
            wanted = wanted.where(column == value)
    if query.page_token:
        wanted = wanted.where(alert.id < page_number(query.page_token))
    with call.state.database.read() as session:
        kept, following = views.cut(session.scalars(wanted).all(), query.limit, lambda row: str(row.id))
        return records.AlertList(alerts=_views(call, session, kept), next_page_token=following)


def _views(call: Call, session: Session, rows: Sequence[models.Alert]) -> list[records.AlertView]:
    firing = session.scalars(select(models.Alert).where(models.Alert.phase == Phase.FIRING.value)).all()
    muted = Muted(call.state, session, firing)
    routes = receivers.Routes(session.scalars(select(models.Receiver)).all())
    return [
        records.AlertView(
            id=row.id,
            fingerprint=row.fingerprint,
            rule=row.rule,
            severity=row.severity,
            phase=row.phase,
            target=row.target_id,
            labels=row.labels,
            annotations=row.annotations,
            active_at=row.active_at,
            fired_at=row.fired_at,
            resolved_at=row.resolved_at,
            acknowledged_at=row.acked_at,
            acknowledged_by=row.acked_by,
            acknowledged_why=row.ack_why,
            silenced_by=muted.silenced_by(row.labels) if row.live else [],
            inhibited=row.live is not None and muted.is_inhibited(row.labels),
            receivers=sorted(item.name for item in routes.of(row.labels)),
        )
        for row in rows
    ]


def acknowledge(call: Call) -> records.AlertView:
    """Somebody looks after it."""
    body: records.Decide = call.body
    text = call.path["alert_id"]
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise errors.NotFoundError(
            f"no alert {text!r}: its id is a number, as `edgeflow alerts list` shows it"
        )
    row = silences.acknowledge(call.state, int(text), actor=call.actor.name, why=body.why)
    with call.state.database.read() as session:
        return _views(call, session, [row])[0]


# ---- silences


def create_silence(call: Call) -> records.SilenceView:
    """Tell nobody of some alerts for a while."""
    body: records.SilenceCreate = call.body
    if (body.ends_at is None) == (body.duration_s is None):
        raise errors.InvalidError("say either ends_at or duration_s")
    begins = max(body.starts_at or call.state.now(), call.state.now())
    try:
        ends = body.ends_at or begins + timedelta(seconds=body.duration_s or 0)
    except OverflowError as error:
        raise errors.InvalidError("a silence ends within a year") from error
    row = silences.create(
        call.state,
        body.matchers,
        starts_at=body.starts_at,
        ends_at=ends,
        comment=body.comment,
        actor=call.actor.name,
    )
    return _silence(row, call.state.now())


def _silence(row: models.Silence, now: datetime) -> records.SilenceView:
    state = "expired" if row.ends_at <= now else "pending" if row.starts_at > now else "active"
    return records.SilenceView(
        id=row.id,
        state=state,
        matchers=row.matchers,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        comment=row.comment,
        created_at=row.created_at,
        created_by=row.created_by,
    )


def list_silences(call: Call) -> records.SilenceList:
    """Silences in order of their ids."""
    query: records.SilenceQuery = call.query
    silence, now = models.Silence, call.state.now()
    wanted = select(silence).where(silence.id > query.page_token).order_by(silence.id).limit(query.limit + 1)
    if not query.expired:
        wanted = wanted.where(silence.ends_at > now)
    with call.state.database.read() as session:
        kept, following = views.cut(session.scalars(wanted).all(), query.limit, lambda row: row.id)
    return records.SilenceList(silences=[_silence(row, now) for row in kept], next_page_token=following)


def expire_silence(call: Call) -> records.SilenceView:
    """End it now."""
    row = silences.expire(call.state, call.path["silence_id"], actor=call.actor.name)
    return _silence(row, call.state.now())


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="GET",
        rule="/alerts",
        policy=Policy.READ,
        handler=listing,
        summary="Alerts, newest first",
        query=records.AlertQuery,
        answer=records.AlertList,
        errors=_REFUSED,
    ),
    Route(
        method="POST",
        rule="/alerts/<alert_id>/acknowledge",
        policy=Policy.OPERATE,
        handler=acknowledge,
        summary="Say that somebody looks after an alert",
        body=records.Decide,
        answer=records.AlertView,
        errors=(*_REFUSED, 404, 409),
    ),
    Route(
        method="POST",
        rule="/silences",
        policy=Policy.OPERATE,
        handler=create_silence,
        summary="Tell nobody of some alerts for a while",
        body=records.SilenceCreate,
        answer=records.SilenceView,
        errors=(*_REFUSED, 409),
    ),
    Route(
        method="GET",
        rule="/silences",
        policy=Policy.READ,
        handler=list_silences,
        summary="List silences",
        query=records.SilenceQuery,
        answer=records.SilenceList,
        errors=_REFUSED,
    ),
    Route(
        method="DELETE",
        rule="/silences/<silence_id>",
        policy=Policy.OPERATE,
        handler=expire_silence,
        summary="End a silence now",
        answer=records.SilenceView,
        errors=(*_REFUSED, 404),
    ),
)
