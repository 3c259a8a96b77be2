"""Tables of what people are told: rules, alerts, silences, receivers, and what is on its way to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Float, Index, Integer, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from edgeflow_mlflow.db.base import ID, PREFIX, Base

_NUMBER = BigInteger().with_variant(Integer, "sqlite")


class AlertRule(Base):
    """A rule that somebody made or changed. A starter rule that nobody touched has no row."""

    __tablename__ = PREFIX + "alert_rules"

    name: Mapped[str] = mapped_column(ID, primary_key=True)
    kind: Mapped[str] = mapped_column(ID)
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    hold_s: Mapped[float] = mapped_column(Float, default=0.0)
    keep_s: Mapped[float] = mapped_column(Float, default=0.0)
    severity: Mapped[str] = mapped_column(ID)
    selector: Mapped[str] = mapped_column(Text, default="")
    model_name: Mapped[str] = mapped_column(default="")
    deployment: Mapped[str] = mapped_column(default="")
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    annotations: Mapped[dict[str, Any]] = mapped_column(default=dict)
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    updated_at: Mapped[datetime]
    updated_by: Mapped[str]


class Alert(Base):
    """One episode of an alert: from pending to resolved. `live` is its fingerprint until it is resolved and
    null after, so that it can come again and history keeps its rows."""

    __tablename__ = PREFIX + "alerts"
    __table_args__ = (
        UniqueConstraint("live", name="uq_edgeflow_alerts_live"),
        Index("ix_edgeflow_alerts_resolved", "resolved_at"),
    )

    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=True)
    live: Mapped[str | None] = mapped_column(ID)
    fingerprint: Mapped[str] = mapped_column(ID)
    rule: Mapped[str] = mapped_column(ID)
    severity: Mapped[str] = mapped_column(ID)
    target_id: Mapped[str] = mapped_column(ID, default="")
    phase: Mapped[str] = mapped_column(ID)
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    annotations: Mapped[dict[str, Any]] = mapped_column(default=dict)
    # See domain/alerts.py.
    active_at: Mapped[datetime | None]
    looked_at: Mapped[datetime | None]
    fired_at: Mapped[datetime | None]
    cleared_at: Mapped[datetime | None]
    resolved_at: Mapped[datetime | None]
    updated_at: Mapped[datetime]
    acked_at: Mapped[datetime | None]
    acked_by: Mapped[str] = mapped_column(default="")
    ack_why: Mapped[str] = mapped_column(Text, default="")


class Silence(Base):
    """Nobody is told of the alerts that match, until it ends."""

    __tablename__ = PREFIX + "silences"
    __table_args__ = (Index("ix_edgeflow_silences_ends", "ends_at"),)

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    matchers: Mapped[list[Any]]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    comment: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    created_by: Mapped[str]


class Receiver(Base):
    """Who is told, how, and of what. `sealed` holds what nobody is to read: address, secret, password."""

    __tablename__ = PREFIX + "receivers"

    name: Mapped[str] = mapped_column(ID, primary_key=True)
    kind: Mapped[str] = mapped_column(ID)
    # Scheme, host and port of where it is: all of the address that is shown.
    address: Mapped[str] = mapped_column(Text)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    sealed: Mapped[bytes]
    matchers: Mapped[list[Any]] = mapped_column(default=list)
    is_default: Mapped[bool] = mapped_column(Boolean, default=False)
    group_by: Mapped[list[Any]] = mapped_column(default=list)
    group_wait_s: Mapped[float] = mapped_column(Float)
    group_interval_s: Mapped[float] = mapped_column(Float)
    repeat_interval_s: Mapped[float] = mapped_column(Float)
    send_resolved: Mapped[bool] = mapped_column(Boolean, default=True)
    updated_at: Mapped[datetime]
    updated_by: Mapped[str]
    # An Alertmanager is told again and again, not once for each transition.
    forwarded_at: Mapped[datetime | None]
    forward_error: Mapped[str] = mapped_column(Text, default="")


class AlertGroup(Base):
    """What a receiver was told of one group of alerts: see domain/alert_groups.py."""

    __tablename__ = PREFIX + "alert_groups"

    receiver: Mapped[str] = mapped_column(ID, primary_key=True)
    key: Mapped[str] = mapped_column(ID, primary_key=True)
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    told: Mapped[list[Any]] = mapped_column(default=list)
    told_at: Mapped[datetime | None]
    news_at: Mapped[datetime | None]


class Delivery(Base):
    """A notification on its way, written in the transaction of the transition that it tells of."""

    __tablename__ = PREFIX + "deliveries"
    __table_args__ = (
        UniqueConstraint("delivery_id"),
        Index("ix_edgeflow_deliveries_due", "state", "next_at"),
        Index("ix_edgeflow_deliveries_order", "receiver", "group_key", "id"),
    )

    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=True)
    # What the receiver sees, the same at every try.
    delivery_id: Mapped[str] = mapped_column(ID)
    receiver: Mapped[str] = mapped_column(ID)
    group_key: Mapped[str] = mapped_column(ID)
    reason: Mapped[str] = mapped_column(ID)
    title: Mapped[str] = mapped_column(Text, default="")
    body: Mapped[bytes]
    state: Mapped[str] = mapped_column(ID, default="waiting")  # waiting | sent | given_up
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    error: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    next_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Counter(Base):
    """Something counted for `/metrics` that only ever grows, though the rows that were counted go."""

    __tablename__ = PREFIX + "counters"

    name: Mapped[str] = mapped_column(ID, primary_key=True)
    # The labels of the series as JSON.
    series: Mapped[str] = mapped_column(Text, primary_key=True, default="")
    value: Mapped[int] = mapped_column(BigInteger, default=0)
