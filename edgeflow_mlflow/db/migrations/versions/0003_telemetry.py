"""Telemetry and drift

Servers of the release before may still run while this is applied: add, never rename or remove what
they read.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from edgeflow_mlflow.db.models import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TABLES = (
    "edgeflow_drift_thresholds",
    "edgeflow_learned_baselines",
    "edgeflow_refused_telemetry",
    "edgeflow_drift",
    "edgeflow_merged_windows",
    "edgeflow_unjudged_windows",
    "edgeflow_windows",
)


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _id(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=64), nullable=nullable)


def _name(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=256), nullable=False)


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, UtcDateTime(timezone=True), nullable=False)


def _count(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "edgeflow_windows",
        sa.Column("id", _number(), autoincrement=True, nullable=False),
        _id("target_id"),
        _id("boot", nullable=True),
        _count("seq", nullable=True),
        _id("span"),
        _moment("start_at"),
        _moment("end_at"),
        _moment("received_at"),
        sa.Column("seconds", sa.Float(), nullable=False),
        _id("deployment_id"),
        _name("model_name"),
        _id("model_version"),
        _id("digest"),
        _id("baseline_sha256"),
        sa.Column("is_learned", sa.Boolean(), nullable=False),
        _count("requests"),
        _count("failed"),
        sa.Column("outcomes", sa.JSON(), nullable=False),
        sa.Column("latency_counts", sa.JSON(), nullable=False),
        sa.Column("latency_sum_s", sa.Float(), nullable=False),
        _count("observed"),
        _count("unobserved"),
        _count("swaps"),
        _count("dropped"),
        _count("pending"),
        sa.Column("resources", sa.JSON(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("refused", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edgeflow_windows")),
        sa.UniqueConstraint("target_id", "boot", "seq", name=op.f("uq_edgeflow_windows_target_id_boot_seq")),
    )
    with op.batch_alter_table("edgeflow_windows", schema=None) as batch_op:
        batch_op.create_index("ix_edgeflow_windows_target_end", ["target_id", "end_at"], unique=False)
        batch_op.create_index(
            "ix_edgeflow_windows_model_end", ["model_name", "model_version", "end_at"], unique=False
        )
        batch_op.create_index("ix_edgeflow_windows_span_received", ["span", "received_at"], unique=False)

    op.create_table(
        "edgeflow_unjudged_windows",
        sa.Column("window_id", _number(), autoincrement=False, nullable=False),
        _id("target_id"),
        _id("digest"),
        _id("baseline_sha256"),
        _name("model_name"),
        _id("model_version"),
        _count("samples"),
        _moment("received_at"),
        sa.PrimaryKeyConstraint("window_id", name=op.f("pk_edgeflow_unjudged_windows")),
    )
    with op.batch_alter_table("edgeflow_unjudged_windows", schema=None) as batch_op:
        batch_op.create_index(
            "ix_edgeflow_unjudged_windows_group", ["target_id", "digest", "baseline_sha256"], unique=False
        )

    op.create_table(
        "edgeflow_merged_windows",
        _id("target_id"),
        _id("boot"),
        _count("first_seq"),
        _count("last_seq"),
        sa.PrimaryKeyConstraint("target_id", "boot", "first_seq", name=op.f("pk_edgeflow_merged_windows")),
    )
    op.create_table(
        "edgeflow_drift",
        _id("scope"),
        _name("scope_id"),
        _id("digest"),
        _id("baseline_sha256"),
        sa.Column("feature", sa.Text(), nullable=False),
        _id("kind"),
        _name("model_name"),
        _id("model_version"),
        _id("deployment_id"),
        _id("status"),
        sa.Column("significant", sa.Boolean(), nullable=False),
        _count("evaluations"),
        sa.Column("alarm", sa.Boolean(), nullable=False),
        sa.Column("alarm_at", UtcDateTime(timezone=True), nullable=True),
        sa.Column("p_value", sa.Float(), nullable=True),
        _count("n"),
        sa.Column("signals", sa.JSON(), nullable=False),
        sa.Column("history", sa.JSON(), nullable=False),
        _moment("from_at"),
        _moment("to_at"),
        _moment("updated_at"),
        sa.Column("window_id", _number(), nullable=False),
        sa.PrimaryKeyConstraint(
            "scope", "scope_id", "digest", "baseline_sha256", "feature", name=op.f("pk_edgeflow_drift")
        ),
    )
    with op.batch_alter_table("edgeflow_drift", schema=None) as batch_op:
        batch_op.create_index("ix_edgeflow_drift_model", ["model_name", "model_version"], unique=False)

    op.create_table(
        "edgeflow_refused_telemetry",
        _id("target_id"),
        _id("reason"),
        _count("count"),
        sa.Column("text", sa.Text(), nullable=False),
        _moment("first_at"),
        _moment("last_at"),
        sa.PrimaryKeyConstraint("target_id", "reason", name=op.f("pk_edgeflow_refused_telemetry")),
    )
    op.create_table(
        "edgeflow_learned_baselines",
        _id("target_id"),
        _id("sha256"),
        _id("digest"),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("target_id", "sha256", name=op.f("pk_edgeflow_learned_baselines")),
    )
    with op.batch_alter_table("edgeflow_learned_baselines", schema=None) as batch_op:
        batch_op.create_index("ix_edgeflow_learned_baselines_sha256", ["sha256"], unique=False)

    op.create_table(
        "edgeflow_drift_thresholds",
        _name("model_name"),
        _id("model_version"),
        sa.Column("settings", sa.JSON(), nullable=False),
        _moment("updated_at"),
        _name("updated_by"),
        sa.PrimaryKeyConstraint("model_name", "model_version", name=op.f("pk_edgeflow_drift_thresholds")),
    )


def downgrade() -> None:
    for table in _TABLES:
        op.drop_table(table)
