"""Rollouts in waves

Servers of the release before may still run while this is applied: add, never rename or remove what
they read.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import edgeflow_mlflow.db.models

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "edgeflow_audit",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("at", edgeflow_mlflow.db.models.UtcDateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("target_id", sa.String(length=64), nullable=False),
        sa.Column("rollout", sa.Integer(), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edgeflow_audit")),
    )
    with op.batch_alter_table("edgeflow_audit", schema=None) as batch_op:
        batch_op.create_index("ix_edgeflow_audit_subject", ["subject", "id"], unique=False)
        batch_op.create_index("ix_edgeflow_audit_target", ["target_id", "id"], unique=False)

    op.create_table(
        "edgeflow_rollout_members",
        sa.Column("rollout_id", sa.String(length=64), nullable=False),
        sa.Column("target_id", sa.String(length=64), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("assigned_at", edgeflow_mlflow.db.models.UtcDateTime(timezone=True), nullable=True),
        sa.Column("execution_id", sa.String(length=64), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("before_id", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["edgeflow_rollouts.id"], name=op.f("fk_edgeflow_rollout_members_rollout_id")
        ),
        sa.PrimaryKeyConstraint("rollout_id", "target_id", name=op.f("pk_edgeflow_rollout_members")),
    )
    with op.batch_alter_table("edgeflow_rollout_members", schema=None) as batch_op:
        batch_op.create_index("ix_edgeflow_rollout_members_target", ["target_id"], unique=False)
        batch_op.create_index(
            "ix_edgeflow_rollout_members_turn",
            ["rollout_id", "wave", "assigned_at", "position"],
            unique=False,
        )

    op.create_table(
        "edgeflow_rollout_waves",
        sa.Column("rollout_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("started_at", edgeflow_mlflow.db.models.UtcDateTime(timezone=True), nullable=True),
        sa.Column("soak_until", edgeflow_mlflow.db.models.UtcDateTime(timezone=True), nullable=True),
        sa.Column("finished_at", edgeflow_mlflow.db.models.UtcDateTime(timezone=True), nullable=True),
        sa.Column("approved_at", edgeflow_mlflow.db.models.UtcDateTime(timezone=True), nullable=True),
        sa.Column("approved_by", sa.String(length=256), nullable=False),
        sa.Column("readings", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["edgeflow_rollouts.id"], name=op.f("fk_edgeflow_rollout_waves_rollout_id")
        ),
        sa.PrimaryKeyConstraint("rollout_id", "number", name=op.f("pk_edgeflow_rollout_waves")),
    )
    with op.batch_alter_table("edgeflow_executions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("trial_requests", sa.BigInteger(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("trial_errors", sa.BigInteger(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("trial_mean_s", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("usual_mean_s", sa.Float(), nullable=True))

    with op.batch_alter_table("edgeflow_rollouts", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("state", sa.String(length=64), server_default="succeeded", nullable=False)
        )
        batch_op.add_column(sa.Column("wave", sa.Integer(), server_default="1", nullable=False))
        batch_op.add_column(sa.Column("why", sa.Text(), server_default="", nullable=False))
        batch_op.add_column(
            sa.Column("resumed_at", edgeflow_mlflow.db.models.UtcDateTime(timezone=True), nullable=True)
        )
        batch_op.add_column(
            sa.Column("finished_at", edgeflow_mlflow.db.models.UtcDateTime(timezone=True), nullable=True)
        )
        batch_op.add_column(sa.Column("returns_to", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("takes_back", sa.Integer(), nullable=True))
        batch_op.create_index("ix_edgeflow_rollouts_state", ["state"], unique=False)

    with op.batch_alter_table("edgeflow_targets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rollout_id", sa.String(length=64), nullable=True))
        batch_op.add_column(
            sa.Column("held_at", edgeflow_mlflow.db.models.UtcDateTime(timezone=True), nullable=True)
        )
        batch_op.add_column(sa.Column("held_by", sa.String(length=256), server_default="", nullable=False))
        batch_op.add_column(sa.Column("hold_reason", sa.Text(), server_default="", nullable=False))
        batch_op.create_index("ix_edgeflow_targets_rollout", ["rollout_id"], unique=False)

    op.execute(
        "UPDATE edgeflow_targets SET rollout_id = (SELECT d.rollout_id FROM edgeflow_deployments d "
        "WHERE d.id = edgeflow_targets.deployment_id)"
    )


def downgrade() -> None:
    with op.batch_alter_table("edgeflow_targets", schema=None) as batch_op:
        batch_op.drop_index("ix_edgeflow_targets_rollout")
        batch_op.drop_column("hold_reason")
        batch_op.drop_column("held_by")
        batch_op.drop_column("held_at")
        batch_op.drop_column("rollout_id")

    with op.batch_alter_table("edgeflow_rollouts", schema=None) as batch_op:
        batch_op.drop_index("ix_edgeflow_rollouts_state")
        batch_op.drop_column("takes_back")
        batch_op.drop_column("returns_to")
        batch_op.drop_column("finished_at")
        batch_op.drop_column("resumed_at")
        batch_op.drop_column("why")
        batch_op.drop_column("wave")
        batch_op.drop_column("state")

    with op.batch_alter_table("edgeflow_executions", schema=None) as batch_op:
        batch_op.drop_column("usual_mean_s")
        batch_op.drop_column("trial_mean_s")
        batch_op.drop_column("trial_errors")
        batch_op.drop_column("trial_requests")

    op.drop_table("edgeflow_rollout_waves")
    with op.batch_alter_table("edgeflow_rollout_members", schema=None) as batch_op:
        batch_op.drop_index("ix_edgeflow_rollout_members_turn")
        batch_op.drop_index("ix_edgeflow_rollout_members_target")

    op.drop_table("edgeflow_rollout_members")
    with op.batch_alter_table("edgeflow_audit", schema=None) as batch_op:
        batch_op.drop_index("ix_edgeflow_audit_target")
        batch_op.drop_index("ix_edgeflow_audit_subject")

    op.drop_table("edgeflow_audit")
