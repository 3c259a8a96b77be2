"""Alerts and notifications

Servers of the release before may still run while this is applied: add, never rename or remove what
they read.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from edgeflow_mlflow.db.models import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = (
    "edgeflow_counters",
    "edgeflow_deliveries",
    "edgeflow_alert_groups",
    "edgeflow_receivers",
    "edgeflow_silences",
    "edgeflow_alerts",
    "edgeflow_alert_rules",
)


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _id(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=64), nullable=nullable)


def _name(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=256), nullable=False)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, UtcDateTime(timezone=True), nullable=nullable)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON(), nullable=False)


def _seconds(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=False)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "edgeflow_alert_rules",
        _id("name"),
        _id("kind"),
        _json("parameters"),
        _seconds("hold_s"),
        _seconds("keep_s"),
        _id("severity"),
        _text("selector"),
        _name("model_name"),
        _name("deployment"),
        _json("labels"),
        _json("annotations"),
        _flag("enabled"),
        _moment("updated_at"),
        _name("updated_by"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_edgeflow_alert_rules")),
    )
    op.create_table(
        "edgeflow_alerts",
        sa.Column("id", _number(), autoincrement=True, nullable=False),
        _id("live", nullable=True),
        _id("fingerprint"),
        _id("rule"),
        _id("severity"),
        _id("target_id"),
        _id("phase"),
        _json("labels"),
        _json("annotations"),
        _moment("active_at", nullable=True),
        _moment("looked_at", nullable=True),
        _moment("fired_at", nullable=True),
        _moment("cleared_at", nullable=True),
        _moment("resolved_at", nullable=True),
        _moment("updated_at"),
        _moment("acked_at", nullable=True),
        _name("acked_by"),
        _text("ack_why"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edgeflow_alerts")),
        sa.UniqueConstraint("live", name="uq_edgeflow_alerts_live"),
    )
    with op.batch_alter_table("edgeflow_alerts", schema=None) as batch_op:
        batch_op.create_index("ix_edgeflow_alerts_resolved", ["resolved_at"], unique=False)

    op.create_table(
        "edgeflow_silences",
        _id("id"),
        _json("matchers"),
        _moment("starts_at"),
        _moment("ends_at"),
        _text("comment"),
        _moment("created_at"),
        _name("created_by"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edgeflow_silences")),
    )
    with op.batch_alter_table("edgeflow_silences", schema=None) as batch_op:
        batch_op.create_index("ix_edgeflow_silences_ends", ["ends_at"], unique=False)

    op.create_table(
        "edgeflow_receivers",
        _id("name"),
        _id("kind"),
        _text("address"),
        _json("settings"),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        _json("matchers"),
        _flag("is_default"),
        _json("group_by"),
        _seconds("group_wait_s"),
        _seconds("group_interval_s"),
        _seconds("repeat_interval_s"),
        _flag("send_resolved"),
        _moment("updated_at"),
        _name("updated_by"),
        _moment("forwarded_at", nullable=True),
        _text("forward_error"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_edgeflow_receivers")),
    )
    op.create_table(
        "edgeflow_alert_groups",
        _id("receiver"),
        _id("key"),
        _json("labels"),
        _json("told"),
        _moment("told_at", nullable=True),
        _moment("news_at", nullable=True),
        sa.PrimaryKeyConstraint("receiver", "key", name=op.f("pk_edgeflow_alert_groups")),
    )
    op.create_table(
        "edgeflow_deliveries",
        sa.Column("id", _number(), autoincrement=True, nullable=False),
        _id("delivery_id"),
        _id("receiver"),
        _id("group_key"),
        _id("reason"),
        _text("title"),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        _id("state"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _text("error"),
        _moment("created_at"),
        _moment("next_at"),
        _moment("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edgeflow_deliveries")),
        sa.UniqueConstraint("delivery_id", name=op.f("uq_edgeflow_deliveries_delivery_id")),
    )
    with op.batch_alter_table("edgeflow_deliveries", schema=None) as batch_op:
        batch_op.create_index("ix_edgeflow_deliveries_due", ["state", "next_at"], unique=False)
        batch_op.create_index("ix_edgeflow_deliveries_order", ["receiver", "group_key", "id"], unique=False)

    op.create_table(
        "edgeflow_counters",
        _id("name"),
        _text("series"),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "series", name=op.f("pk_edgeflow_counters")),
    )


def downgrade() -> None:
    for name in _TABLES:
        op.drop_table(name)
