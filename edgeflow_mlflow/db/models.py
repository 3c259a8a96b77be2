"""Edgeflow's tables. Own metadata, prefix `edgeflow_`, no foreign keys into MLflow's tables.

Enum columns hold the words of the wire contract as text. Times are aware and in UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Float, Index, Integer, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from edgeflow_mlflow.db.alert_models import (
    Alert,
    AlertGroup,
    AlertRule,
    Counter,
    Delivery,
    Receiver,
    Silence,
)
from edgeflow_mlflow.db.base import ID, PREFIX, Base, UtcDateTime
from edgeflow_mlflow.db.lineage_models import Dataset, LineageEdge, Recall, RecallTarget, Served
from edgeflow_mlflow.db.rollout_models import (
    Audit,
    Deployment,
    Execution,
    Rollout,
    RolloutMember,
    RolloutWave,
)
from edgeflow_mlflow.db.telemetry_models import (
    Drift,
    DriftThresholds,
    LearnedBaseline,
    MergedWindows,
    RefusedTelemetry,
    UnjudgedWindow,
    Window,
)

__all__ = [
    "Alert",
    "AlertGroup",
    "AlertRule",
    "Audit",
    "Base",
    "Counter",
    "Dataset",
    "Delivery",
    "Deployment",
    "Drift",
    "DriftThresholds",
    "Execution",
    "LearnedBaseline",
    "LineageEdge",
    "MergedWindows",
    "Recall",
    "RecallTarget",
    "Receiver",
    "RefusedTelemetry",
    "Rollout",
    "RolloutMember",
    "RolloutWave",
    "Served",
    "Silence",
    "UnjudgedWindow",
    "UtcDateTime",
    "Window",
]


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
        Index("ix_edgeflow_targets_rollout", "rollout_id"),
        Index("ix_edgeflow_targets_reissue", "document_expires_at"),
        Index("ix_edgeflow_targets_actual", "actual_digest"),
        Index("ix_edgeflow_targets_previous", "previous_digest"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    # desired
    deployment_id: Mapped[str | None] = mapped_column(ID)
    # The rollout whose model it is to serve: with waves not always the newest of its deployment.
    rollout_id: Mapped[str | None] = mapped_column(ID)
    # Who is held is left out of rollouts.
    held_at: Mapped[datetime | None]
    held_by: Mapped[str] = mapped_column(default="", server_default="")
    hold_reason: Mapped[str] = mapped_column(Text, default="", server_default="")
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    published_generation: Mapped[int] = mapped_column(BigInteger, default=0)
    document: Mapped[bytes | None]
    document_expires_at: Mapped[datetime | None]
    # actual, from presence
    connected: Mapped[bool] = mapped_column(Boolean, default=False)
    last_seen_at: Mapped[datetime | None]
    presence: Mapped[dict[str, Any]] = mapped_column(default=dict)
    actual_digest: Mapped[str] = mapped_column(ID, default="")
    # What it keeps to fall back on.
    previous_digest: Mapped[str] = mapped_column(ID, default="", server_default="")
    actual_generation: Mapped[int] = mapped_column(BigInteger, default=0)


class Label(Base):
    """A label of a target, to be searched; `Target.labels` is what it has."""

    __tablename__ = PREFIX + "labels"
    __table_args__ = (Index("ix_edgeflow_labels_target", "target_id"),)

    key: Mapped[str] = mapped_column(ID, primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    target_id: Mapped[str] = mapped_column(ID, primary_key=True)


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
        Index("ix_edgeflow_bundles_logged", "model_id"),
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
