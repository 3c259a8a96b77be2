"""Tables of what devices have seen: windows of telemetry, and what was made of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Float, Index, Integer, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from edgeflow_mlflow.db.base import ID, PREFIX, Base

_NUMBER = BigInteger().with_variant(Integer, "sqlite")


class Window(Base):
    """A window of telemetry: as it came (`span` raw), or merged from those of an hour or a day.

    What is counted stands in columns, the sketches in `payload`, which is a packed `TelemetryWindow`; null
    when there are none, or when they were refused (`refused` says why: nothing is computed from them).
    """

    __tablename__ = PREFIX + "windows"
    __table_args__ = (
        UniqueConstraint("target_id", "boot", "seq"),
        Index("ix_edgeflow_windows_target_end", "target_id", "end_at"),
        Index("ix_edgeflow_windows_model_end", "model_name", "model_version", "end_at"),
        Index("ix_edgeflow_windows_span_received", "span", "received_at"),
    )

    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=True)
    target_id: Mapped[str] = mapped_column(ID)
    # Null for merged ones, whose windows stand in edgeflow_merged_windows.
    boot: Mapped[str | None] = mapped_column(ID)
    seq: Mapped[int | None] = mapped_column(BigInteger)
    span: Mapped[str] = mapped_column(ID, default="raw")  # raw | hour | day
    # By the device's clock, moved into the past when it lies in the future.
    start_at: Mapped[datetime]
    end_at: Mapped[datetime]
    received_at: Mapped[datetime]
    seconds: Mapped[float] = mapped_column(Float, default=0.0)
    deployment_id: Mapped[str] = mapped_column(ID, default="")
    model_name: Mapped[str] = mapped_column(default="")
    model_version: Mapped[str] = mapped_column(ID, default="")
    digest: Mapped[str] = mapped_column(ID, default="")
    baseline_sha256: Mapped[str] = mapped_column(ID, default="")
    is_learned: Mapped[bool] = mapped_column(Boolean, default=False)
    requests: Mapped[int] = mapped_column(BigInteger, default=0)
    failed: Mapped[int] = mapped_column(BigInteger, default=0)
    # By outcome, as in wire.telemetry.Requests; the counts of LATENCY_BUCKETS and beyond.
    outcomes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    latency_counts: Mapped[list[Any]] = mapped_column(default=list)
    latency_sum_s: Mapped[float] = mapped_column(Float, default=0.0)
    observed: Mapped[int] = mapped_column(BigInteger, default=0)
    unobserved: Mapped[int] = mapped_column(BigInteger, default=0)
    swaps: Mapped[int] = mapped_column(BigInteger, default=0)
    # As the device counts: windows lost since its spool began, windows that still wait.
    dropped: Mapped[int] = mapped_column(BigInteger, default=0)
    pending: Mapped[int] = mapped_column(BigInteger, default=0)
    resources: Mapped[dict[str, Any]] = mapped_column(default=dict)
    payload: Mapped[bytes | None]
    refused: Mapped[str] = mapped_column(Text, default="")


class UnjudgedWindow(Base):
    """A window whose sketches wait to be judged. Written with the window, gone when it is judged: ids are no
    order, since one that is smaller may be committed later."""

    __tablename__ = PREFIX + "unjudged_windows"
    __table_args__ = (Index("ix_edgeflow_unjudged_windows_group", "target_id", "digest", "baseline_sha256"),)

    window_id: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=False)
    target_id: Mapped[str] = mapped_column(ID)
    digest: Mapped[str] = mapped_column(ID)
    baseline_sha256: Mapped[str] = mapped_column(ID)
    model_name: Mapped[str] = mapped_column(default="")
    model_version: Mapped[str] = mapped_column(ID, default="")
    # The most values that any of its features has.
    samples: Mapped[int] = mapped_column(BigInteger)
    received_at: Mapped[datetime]


class MergedWindows(Base):
    """Which windows were merged or deleted, as ranges of `seq`: a repeat of them is known."""

    __tablename__ = PREFIX + "merged_windows"

    target_id: Mapped[str] = mapped_column(ID, primary_key=True)
    boot: Mapped[str] = mapped_column(ID, primary_key=True)
    first_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    last_seq: Mapped[int] = mapped_column(BigInteger)


class Drift(Base):
    """The newest verdict on one feature: of one target, or of all targets of a fleet or with that model
    together (`scope` target, fleet or model; `scope_id` the target, the fleet's name, or empty).

    `history` holds the newest evaluations, each `{"at", "n", "status", "p_value", "significant"}`, the latest
    last: an alarm needs several that agree. `significant` says that it stood out among all features and
    targets judged with it (Benjamini-Hochberg).
    """

    __tablename__ = PREFIX + "drift"
    __table_args__ = (Index("ix_edgeflow_drift_model", "model_name", "model_version"),)

    scope: Mapped[str] = mapped_column(ID, primary_key=True)
    scope_id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(ID, primary_key=True)
    baseline_sha256: Mapped[str] = mapped_column(ID, primary_key=True)
    feature: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(ID)  # input | output
    model_name: Mapped[str] = mapped_column(default="")
    model_version: Mapped[str] = mapped_column(ID, default="")
    deployment_id: Mapped[str] = mapped_column(ID, default="")
    status: Mapped[str] = mapped_column(ID)  # ok | drift | insufficient_data
    significant: Mapped[bool] = mapped_column(Boolean, default=False)
    # How often it was judged with enough values.
    evaluations: Mapped[int] = mapped_column(BigInteger, default=0)
    # Whether enough of the newest evaluations agree: what alerts look at.
    alarm: Mapped[bool] = mapped_column(Boolean, default=False)
    # When it last was one. Null once it has recovered; kept when the target got another model instead.
    alarm_at: Mapped[datetime | None]
    p_value: Mapped[float | None] = mapped_column(Float)
    n: Mapped[int] = mapped_column(BigInteger, default=0)
    signals: Mapped[list[Any]] = mapped_column(default=list)
    history: Mapped[list[Any]] = mapped_column(default=list)
    from_at: Mapped[datetime]
    to_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    # The newest window that was judged: the next evaluation begins after it.
    window_id: Mapped[int] = mapped_column(_NUMBER, default=0)


class RefusedTelemetry(Base):
    """How often a target's windows, or parts of them, were refused for one reason; the newest in words."""

    __tablename__ = PREFIX + "refused_telemetry"

    target_id: Mapped[str] = mapped_column(ID, primary_key=True)
    reason: Mapped[str] = mapped_column(ID, primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger, default=0)
    text: Mapped[str] = mapped_column(Text, default="")
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]


class LearnedBaseline(Base):
    """A baseline that a device made from its first requests, because its model brought none. Packed."""

    __tablename__ = PREFIX + "learned_baselines"
    __table_args__ = (Index("ix_edgeflow_learned_baselines_sha256", "sha256"),)

    target_id: Mapped[str] = mapped_column(ID, primary_key=True)
    sha256: Mapped[str] = mapped_column(ID, primary_key=True)
    digest: Mapped[str] = mapped_column(ID)
    content: Mapped[bytes]
    created_at: Mapped[datetime]


class DriftThresholds(Base):
    """From when on a model version counts as drifted, where that is not as usual."""

    __tablename__ = PREFIX + "drift_thresholds"

    model_name: Mapped[str] = mapped_column(primary_key=True)
    model_version: Mapped[str] = mapped_column(ID, primary_key=True)
    # Limits by the name of a statistic (null: not judged), `min_samples`, `min_reference`, `chance`.
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    updated_at: Mapped[datetime]
    updated_by: Mapped[str]
