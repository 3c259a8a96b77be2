"""Which receivers are to be told of what: a row in the outbox for each transition of a group."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import alert_groups, notifications
from edgeflow_mlflow.domain.alert_groups import Episode, Group, Reason, Turn
from edgeflow_mlflow.domain.matchers import Inhibitor
from edgeflow_mlflow.domain.notifications import Notification, Told
from edgeflow_mlflow.services import receivers, silences
from edgeflow_mlflow.services.state import State


class Muted:
    """Of which alerts nobody is told now: they are silenced, or another speaks for them."""

    def __init__(self, state: State, session: Session, firing: Sequence[models.Alert]) -> None:
        self._now = state.now()
        self._silences = silences.active(session, self._now)
        self._inhibitor = Inhibitor(row.labels for row in firing)

    def silenced_by(self, labels: Mapping[str, str]) -> list[str]:
        """The ids of the silences that cover an alert with these labels."""
        return [item.id for item in self._silences if item.covers(labels, self._now)]

    def is_inhibited(self, labels: Mapping[str, str]) -> bool:
        """Whether another alert speaks for it."""
        return self._inhibitor.hushes(labels)

    def mutes(self, labels: Mapping[str, str]) -> bool:
        """Either of them."""
        return self.is_inhibited(labels) or bool(self.silenced_by(labels))


@dataclass(frozen=True, kw_only=True)
class _Due:
    receiver: models.Receiver
    key: str
    labels: dict[str, str]
    row: models.AlertGroup | None
    turn: Turn

    @property
    def is_news(self) -> bool:
        """Whether something is to be written."""
        before = None if self.row is None else _group(self.row)
        return self.turn.reason is not None or self.turn.group != before


class Telling:
    """One look at all groups of all receivers. `firing` are the alerts that fire."""

    def __init__(self, state: State, session: Session, firing: Sequence[models.Alert]) -> None:
        self._state = state
        self._session = session
        self._firing = {row.id: row for row in firing}
        self._now = state.now()

    def is_news(self) -> bool:
        """Whether something is to be written."""
        return any(item.is_news for item in self._due())

    def carry_out(self) -> None:
        """Write it: what was told of each group, and the notifications."""
        for item in list(self._due()):
            if not item.is_news:
                continue
            if item.turn.reason is not None:
                self._tell(item)
            if item.turn.group is not None:
                self._keep(item, item.turn.group)
            elif item.row is not None:
                self._session.delete(item.row)

    def _due(self) -> Iterator[_Due]:
        rows = self._session.scalars(
            select(models.Receiver)
            .where(models.Receiver.kind != "alertmanager")
            .order_by(models.Receiver.name)
        ).all()
        if not rows:
            return
        known = {(row.receiver, row.key): row for row in self._session.scalars(select(models.AlertGroup))}
        members = self._members(rows)
        by_name = {row.name: row for row in rows}
        for receiver, key in sorted(known.keys() | members.keys()):
            if receiver not in by_name:
                continue
            row = known.get((receiver, key))
            labels, episodes = members.get((receiver, key), ({} if row is None else row.labels, []))
            group = Group() if row is None else _group(row)
            pace = receivers.pace(by_name[receiver])
            turn = alert_groups.turn(group, episodes, self._firing.keys(), self._now, pace)
            yield _Due(receiver=by_name[receiver], key=key, labels=labels, row=row, turn=turn)

    def _members(
        self, rows: Sequence[models.Receiver]
    ) -> dict[tuple[str, str], tuple[dict[str, str], list[Episode]]]:
        routes = receivers.Routes(rows)
        muted = Muted(self._state, self._session, list(self._firing.values()))
        found: dict[tuple[str, str], tuple[dict[str, str], list[Episode]]] = {}
        for alert in self._firing.values():
            episode = Episode(
                id=alert.id, muted=muted.mutes(alert.labels), acknowledged=alert.acked_at is not None
            )
            for receiver in routes.of(alert.labels):
                labels = alert_groups.labels_of(alert.labels, receiver.group_by)
                key = alert_groups.hashed(alert_groups.key(receiver.name, labels))
                found.setdefault((receiver.name, key), (labels, []))[1].append(episode)
        return found

    def _keep(self, item: _Due, group: Group) -> None:
        row = item.row
        if row is None:
            row = models.AlertGroup(receiver=item.receiver.name, key=item.key, labels=item.labels)
            self._session.add(row)
        row.told, row.told_at, row.news_at = sorted(group.told), group.told_at, group.news_at

    def _tell(self, item: _Due) -> None:
        assert item.turn.reason is not None
        ended = self._session.scalars(select(models.Alert).where(models.Alert.id.in_(item.turn.resolved)))
        told = [*(self._firing[number] for number in item.turn.firing), *ended]
        if not told:
            return  # its alerts were forgotten meanwhile, so there is nothing to say of them
        notification = Notification(
            receiver=item.receiver.name,
            reason=item.turn.reason,
            group_labels=item.labels,
            alerts=[as_told(alert) for alert in told],
            external_url=self._state.config["notifications.external_url"],
        )
        self._session.add(
            models.Delivery(
                delivery_id=uuid.uuid4().hex,
                receiver=item.receiver.name,
                group_key=item.key,
                reason=notification.reason.value,
                title=notifications.title(notification),
                body=body(item.receiver.kind, notification),
                created_at=self._now,
                next_at=self._now,
            )
        )


def _group(row: models.AlertGroup) -> Group:
    return Group(told=frozenset(row.told), told_at=row.told_at, news_at=row.news_at)


def as_told(row: models.Alert) -> Told:
    """An alert as receivers see it."""
    return Told(
        labels=row.labels,
        annotations=row.annotations,
        fingerprint=row.fingerprint,
        starts_at=row.fired_at or row.updated_at,
        ends_at=row.resolved_at,
    )


def body(kind: str, notification: Notification) -> bytes:
    """What is sent to a receiver of that kind."""
    content: dict[str, Any]
    match kind:
        case "slack":
            content = notifications.slack(notification)
        case "email":
            content = notifications.mail(notification)
        case _:
            content = notifications.webhook(notification)
    return msgspec.json.encode(content)


def trial(state: State, receiver: models.Receiver) -> Notification:
    """A notification that says that it is none."""
    return Notification(
        receiver=receiver.name,
        reason=Reason.TEST,
        group_labels={"alertname": "Test"},
        alerts=[
            Told(
                labels={"alertname": "Test", "severity": "info"},
                annotations={"summary": "Somebody tries this receiver out; nothing is wrong."},
                fingerprint="0" * 16,
                starts_at=state.now(),
            )
        ],
        external_url=state.config["notifications.external_url"],
    )
