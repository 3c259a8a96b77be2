"""Edgeflow's tables. Own metadata, prefix `edgeflow_`, no foreign keys into MLflow's tables.

Enum columns hold the words of the wire contract as text. Times are aware and in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

PREFIX = "edgeflow_"
ID = String(64)
NAME = String(256)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment: SQLite keeps no time zone, so it is put back when read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive moment: it could mean anything."""
        del dialect
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment without a time zone cannot be stored")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Everything stored is UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Our own declarative base: MLflow compares its own with the database at every start."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own protocol
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        str: NAME,
        bytes: LargeBinary,
    }


class Fact(Base):
    """A fact about this installation, such as the fingerprint of its root key."""

    __tablename__ = PREFIX + "facts"

    name: Mapped[str] = mapped_column(ID, primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class Lease(Base):
    """Who is the hub. `fence` rises with every change of holder; every write of the hub checks it."""

    __tablename__ = PREFIX + "leases"

    name: Mapped[str] = mapped_column(ID, primary_key=True)
    holder: Mapped[str]
    fence: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime]
    # What the holder offers: broker address, health, process id.
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


class EnrolmentToken(Base):
    """Lets devices in. Only the hash of its secret is kept."""

    __tablename__ = PREFIX + "enrolment_tokens"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    secret_hash: Mapped[str] = mapped_column(ID)
    uses: Mapped[int]
    uses_left: Mapped[int]
    expires_at: Mapped[datetime]
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    # When set, the token enrols only this target, and may enrol it again.
    target_id: Mapped[str | None] = mapped_column(ID)
    note: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    revoked_at: Mapped[datetime | None]


class Target(Base):
    """A device or process that runs an agent: what it is to be, and what it says it is."""

    __tablename__ = PREFIX + "targets"
    __table_args__ = (
        # The hub looks for work with this one, many times a second.
        Index("ix_edgeflow_targets_unpublished", "published_generation", "generation"),
        Index("ix_edgeflow_targets_deployment", "deployment_id"),
        Index("ix_edgeflow_targets_reissue", "document_expires_at"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    # desired
    deployment_id: Mapped[str | None] = mapped_column(ID)
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    published_generation: Mapped[int] = mapped_column(BigInteger, default=0)
    document: Mapped[bytes | None]
    document_expires_at: Mapped[datetime | None]
    # actual, from presence
    connected: Mapped[bool] = mapped_column(Boolean, default=False)
    last_seen_at: Mapped[datetime | None]
    presence: Mapped[dict[str, Any]] = mapped_column(default=dict)
    actual_digest: Mapped[str] = mapped_column(ID, default="")
    actual_generation: Mapped[int] = mapped_column(BigInteger, default=0)


class Credential(Base):
    """A device's own secret, hashed. Two may live for a while during a rotation."""

    __tablename__ = PREFIX + "credentials"
    __table_args__ = (
        Index("ix_edgeflow_credentials_target", "target_id"),
        Index("ix_edgeflow_credentials_revoked", "revoked_at"),
        UniqueConstraint("token_id", "idempotency_key", name="uq_edgeflow_credentials_enrolment"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    target_id: Mapped[str] = mapped_column(ID)
    secret_hash: Mapped[str] = mapped_column(ID)
    token_id: Mapped[str | None] = mapped_column(ID)
    idempotency_key: Mapped[str | None] = mapped_column(ID)
    # The credential that this one replaces: it dies when this one is first used.
    replaces: Mapped[str | None] = mapped_column(ID)
    created_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Bundle(Base):
    """The files of one model version as devices get them, and what was known of it at that moment."""

    __tablename__ = PREFIX + "bundles"
    __table_args__ = (
        Index("ix_edgeflow_bundles_model", "model_name", "model_version"),
        Index("ix_edgeflow_bundles_run", "run_id"),
        Index("ix_edgeflow_bundles_digest", "digest"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    digest: Mapped[str] = mapped_column(ID)
    model_name: Mapped[str]
    model_version: Mapped[str] = mapped_column(ID)
    model_id: Mapped[str] = mapped_column(ID, default="")
    run_id: Mapped[str] = mapped_column(ID, default="")
    source: Mapped[str] = mapped_column(Text, default="")
    files: Mapped[list[Any]]
    entry: Mapped[str]
    interface: Mapped[dict[str, Any]]
    baseline_sha256: Mapped[str] = mapped_column(ID, default="")
    lineage: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Verdict(Base):
    """Whether a registered model version can go to a device. Noted here, never in MLflow's tags, which
    its clients compare exactly."""

    __tablename__ = PREFIX + "verdicts"

    model_name: Mapped[str] = mapped_column(primary_key=True)
    model_version: Mapped[str] = mapped_column(ID, primary_key=True)
    verdict: Mapped[str] = mapped_column(ID)  # pending | deployable | not_deployable | unreadable
    message: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Fleet(Base):
    """A named set of targets: a fixed list, or a selector over labels."""

    __tablename__ = PREFIX + "fleets"

    name: Mapped[str] = mapped_column(primary_key=True)
    selector: Mapped[str] = mapped_column(Text, default="")
    targets: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[datetime]
    created_by: Mapped[str]


class Deployment(Base):
    """A named binding of a model to targets. `live_name` is the name while it lives and null after, so
    that a name can be used again and history keeps its rows."""

    __tablename__ = PREFIX + "deployments"
    __table_args__ = (UniqueConstraint("live_name", name="uq_edgeflow_deployments_live_name"),)

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str]
    live_name: Mapped[str | None]
    fleet: Mapped[str] = mapped_column(default="")
    selector: Mapped[str] = mapped_column(Text, default="")
    # Set when the deployment follows an alias: `model_name` then says of which model.
    alias: Mapped[str] = mapped_column(default="")
    model_name: Mapped[str] = mapped_column(default="")
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    rollout_id: Mapped[str] = mapped_column(ID)
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class Rollout(Base):
    """One revision of a deployment: which bundle, when, by whom and why."""

    __tablename__ = PREFIX + "rollouts"
    __table_args__ = (UniqueConstraint("deployment_id", "number"),)

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("edgeflow_deployments.id"))
    number: Mapped[int]
    bundle_id: Mapped[str] = mapped_column(ForeignKey("edgeflow_bundles.id"))
    model_uri: Mapped[str] = mapped_column(Text)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    reason: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    created_by: Mapped[str]


class Execution(Base):
    """One target's part of a rollout."""

    __tablename__ = PREFIX + "executions"
    __table_args__ = (
        # At most one execution per target is not terminal.
        Index(
            "uq_edgeflow_executions_open",
            "target_id",
            unique=True,
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
        Index("ix_edgeflow_executions_rollout", "rollout_id"),
        Index("ix_edgeflow_executions_target", "target_id", "generation"),
        Index("ix_edgeflow_executions_deadline", "deadline_at"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    target_id: Mapped[str] = mapped_column(ID)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("edgeflow_deployments.id"))
    rollout_id: Mapped[str] = mapped_column(ForeignKey("edgeflow_rollouts.id"))
    generation: Mapped[int] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(ID)
    state: Mapped[str] = mapped_column(ID)
    reason: Mapped[str] = mapped_column(default="")
    message: Mapped[str] = mapped_column(Text, default="")
    progress: Mapped[float | None] = mapped_column(Float)
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deadline_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class DeviceReport(Base):
    """Every report as it came, in order of receipt; (target, boot, seq) once."""

    __tablename__ = PREFIX + "reports"
    __table_args__ = (
        UniqueConstraint("target_id", "boot", "seq"),
        Index("ix_edgeflow_reports_execution", "execution_id"),
        Index("ix_edgeflow_reports_received", "received_at"),
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    target_id: Mapped[str] = mapped_column(ID)
    boot: Mapped[str] = mapped_column(ID)
    seq: Mapped[int] = mapped_column(BigInteger)
    execution_id: Mapped[str] = mapped_column(ID, default="")
    generation: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(ID)
    reason: Mapped[str] = mapped_column(default="")
    message: Mapped[str] = mapped_column(Text, default="")
    progress: Mapped[float | None] = mapped_column(Float)
    # What the server made of it: see domain/projection.py.
    decision: Mapped[str] = mapped_column(ID)
    device_at: Mapped[datetime | None]
    received_at: Mapped[datetime]


class Unreadable(Base):
    """A message that could not be read, kept for inspection; bounded per target."""

    __tablename__ = PREFIX + "unreadable"
    __table_args__ = (Index("ix_edgeflow_unreadable_target", "target_id", "id"),)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    target_id: Mapped[str] = mapped_column(ID)
    kind: Mapped[str] = mapped_column(ID)
    error: Mapped[str] = mapped_column(Text)
    payload: Mapped[bytes]
    received_at: Mapped[datetime]


class RpcCall(Base):
    """A question to a device on its way: a web worker writes it, the hub sends it and writes the answer."""

    __tablename__ = PREFIX + "rpc_calls"
    __table_args__ = (Index("ix_edgeflow_rpc_calls_unsent", "sent_at", "expires_at"),)

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    target_id: Mapped[str] = mapped_column(ID)
    method: Mapped[str] = mapped_column(ID)
    body: Mapped[bytes]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    status: Mapped[int | None]
    answer: Mapped[bytes | None]
