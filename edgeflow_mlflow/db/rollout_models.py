"""Tables of what is to go where: deployments, their rollouts, and each target's part."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from edgeflow_mlflow.db.base import ID, PREFIX, Base


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
    """One revision of a deployment: which bundle, when, by whom and why; and how it goes."""

    __tablename__ = PREFIX + "rollouts"
    __table_args__ = (
        UniqueConstraint("deployment_id", "number"),
        Index("ix_edgeflow_rollouts_state", "state"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("edgeflow_deployments.id"))
    number: Mapped[int]
    bundle_id: Mapped[str] = mapped_column(ForeignKey("edgeflow_bundles.id"))
    model_uri: Mapped[str] = mapped_column(Text)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    reason: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    # See domain/rollouts.py. What was made before there were waves reached everybody at once.
    state: Mapped[str] = mapped_column(ID, default="running", server_default="succeeded")
    wave: Mapped[int] = mapped_column(Integer, default=1, server_default="1")
    why: Mapped[str] = mapped_column(Text, default="", server_default="")
    # Failures before this moment were seen and accepted by whoever resumed.
    resumed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # The number of the rollout that this one goes back to, and of the one that it takes back.
    returns_to: Mapped[int | None]
    takes_back: Mapped[int | None]


class RolloutWave(Base):
    """One step of a rollout, and what decided that the next one may begin."""

    __tablename__ = PREFIX + "rollout_waves"

    rollout_id: Mapped[str] = mapped_column(ForeignKey("edgeflow_rollouts.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    state: Mapped[str] = mapped_column(ID)
    started_at: Mapped[datetime | None]
    soak_until: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    approved_at: Mapped[datetime | None]
    approved_by: Mapped[str] = mapped_column(default="")
    # What each gate said last: see domain/gates.py.
    readings: Mapped[list[Any]] = mapped_column(default=list)


class RolloutMember(Base):
    """A target that a rollout is to reach, and its newest execution in it."""

    __tablename__ = PREFIX + "rollout_members"
    __table_args__ = (
        Index("ix_edgeflow_rollout_members_turn", "rollout_id", "wave", "assigned_at", "position"),
        Index("ix_edgeflow_rollout_members_target", "target_id"),
    )

    rollout_id: Mapped[str] = mapped_column(ForeignKey("edgeflow_rollouts.id"), primary_key=True)
    target_id: Mapped[str] = mapped_column(ID, primary_key=True)
    wave: Mapped[int] = mapped_column(Integer)
    position: Mapped[int] = mapped_column(Integer)
    assigned_at: Mapped[datetime | None]
    execution_id: Mapped[str | None] = mapped_column(ID)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    # What it was to serve before, to put it back when this rollout is aborted.
    before_id: Mapped[str | None] = mapped_column(ID)


class Audit(Base):
    """Who did what, when and why. Only ever added to."""

    __tablename__ = PREFIX + "audit"
    __table_args__ = (
        Index("ix_edgeflow_audit_subject", "subject", "id"),
        Index("ix_edgeflow_audit_target", "target_id", "id"),
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str] = mapped_column(ID)
    # The deployment, fleet or token that it was about, and the target if it was about one.
    subject: Mapped[str] = mapped_column(default="")
    target_id: Mapped[str] = mapped_column(ID, default="")
    rollout: Mapped[int | None] = mapped_column(Integer)
    why: Mapped[str] = mapped_column(Text, default="")
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


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
    # What the device saw on trial: requests, errors, and the mean run of this model and of the one before.
    trial_requests: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    trial_errors: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    trial_mean_s: Mapped[float | None] = mapped_column(Float)
    usual_mean_s: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deadline_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
