"""Lineage, what was served when, and recalls

Servers of the release before may still run while this is applied: add, never rename or remove what
they read.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from edgeflow_mlflow.db.models import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLES = (
    "edgeflow_labels",
    "edgeflow_recall_targets",
    "edgeflow_recalls",
    "edgeflow_served",
    "edgeflow_lineage_edges",
    "edgeflow_datasets",
)


def _id(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=64), nullable=False)


def _words(name: str, length: int = 256) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, UtcDateTime(timezone=True), nullable=nullable)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "edgeflow_datasets",
        _id("id"),
        _words("name", 512),
        _id("digest"),
        _id("content"),
        _words("source_type"),
        _text("source"),
        _moment("first_seen_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edgeflow_datasets")),
    )
    op.create_index("ix_edgeflow_datasets_name", "edgeflow_datasets", ["name", "digest"])
    op.create_index("ix_edgeflow_datasets_digest", "edgeflow_datasets", ["digest"])
    op.create_index("ix_edgeflow_datasets_content", "edgeflow_datasets", ["content"])
    op.create_table(
        "edgeflow_lineage_edges",
        _words("child", 320),
        _words("parent", 320),
        _id("how"),
        _words("context"),
        _id("experiment_id"),
        sa.PrimaryKeyConstraint("child", "parent", "how", "context", name=op.f("pk_edgeflow_lineage_edges")),
    )
    op.create_index("ix_edgeflow_lineage_edges_parent", "edgeflow_lineage_edges", ["parent"])
    op.create_table(
        "edgeflow_served",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        _id("target_id"),
        _id("digest"),
        _id("bundle_id"),
        _id("execution_id"),
        _moment("since"),
        _moment("until", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edgeflow_served")),
    )
    op.create_index("ix_edgeflow_served_target", "edgeflow_served", ["target_id", "since"])
    op.create_index("ix_edgeflow_served_bundle", "edgeflow_served", ["bundle_id", "target_id", "since"])
    op.create_index("ix_edgeflow_served_until", "edgeflow_served", ["until"])
    op.create_table(
        "edgeflow_recalls",
        _id("id"),
        _json("datasets"),
        sa.Column("any_use", sa.Boolean(), nullable=False),
        _text("why"),
        _json("digests"),
        _json("plan"),
        _moment("created_at"),
        _words("created_by"),
        _moment("lifted_at", nullable=True),
        _words("lifted_by"),
        _text("lift_why"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edgeflow_recalls")),
    )
    op.create_index("ix_edgeflow_recalls_lifted", "edgeflow_recalls", ["lifted_at"])
    op.create_table(
        "edgeflow_recall_targets",
        _id("recall_id"),
        _id("target_id"),
        _id("deployment_id"),
        _json("bonds"),
        _words("model_name"),
        _id("model_version"),
        _id("remedy"),
        _text("goes_to"),
        _text("error"),
        sa.PrimaryKeyConstraint("recall_id", "target_id", name=op.f("pk_edgeflow_recall_targets")),
    )
    op.create_table(
        "edgeflow_labels",
        _id("key"),
        _words("value"),
        _id("target_id"),
        sa.PrimaryKeyConstraint("key", "value", "target_id", name=op.f("pk_edgeflow_labels")),
    )
    op.create_index("ix_edgeflow_labels_target", "edgeflow_labels", ["target_id"])
    op.create_index("ix_edgeflow_recall_targets_target", "edgeflow_recall_targets", ["target_id"])
    with op.batch_alter_table("edgeflow_targets", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("previous_digest", sa.String(length=64), server_default="", nullable=False)
        )
        batch_op.create_index("ix_edgeflow_targets_actual", ["actual_digest"], unique=False)
        batch_op.create_index("ix_edgeflow_targets_previous", ["previous_digest"], unique=False)
    _begin_history()
    _search_labels()


def _search_labels() -> None:
    """The labels that targets have, as rows."""
    targets = sa.table("edgeflow_targets", sa.column("id"), sa.column("labels", sa.JSON()))
    labels = sa.table("edgeflow_labels", *(sa.column(name) for name in ("key", "value", "target_id")))
    connection = op.get_bind()
    rows = [
        {"key": key, "value": value, "target_id": target}
        for target, found in connection.execute(sa.select(targets)).all()
        for key, value in (found or {}).items()
    ]
    if rows:
        connection.execute(sa.insert(labels), rows)


def _begin_history() -> None:
    """What devices serve now is the first thing that is known of them, from the moment of the upgrade."""
    targets = sa.table(
        "edgeflow_targets", sa.column("id"), sa.column("actual_digest"), sa.column("presence", sa.JSON())
    )
    bundles = sa.table("edgeflow_bundles", sa.column("id"), sa.column("digest"))
    served = sa.table(
        "edgeflow_served",
        *(sa.column(name) for name in ("target_id", "digest", "bundle_id", "execution_id")),
        sa.column("since", UtcDateTime(timezone=True)),
    )
    connection = op.get_bind()
    by_digest = {digest: identifier for identifier, digest in connection.execute(sa.select(bundles))}
    now = datetime.now(UTC)
    rows = [
        {
            "target_id": target,
            "digest": digest,
            "bundle_id": by_digest.get(digest, ""),
            "execution_id": str((presence or {}).get("execution", ""))[:64],
            "since": now,
        }
        for target, digest, presence in connection.execute(sa.select(targets)).all()
        if digest
    ]
    if rows:
        connection.execute(sa.insert(served), rows)
    kept = sa.table("edgeflow_targets", sa.column("id"), sa.column("previous_digest"))
    for target, _, presence in connection.execute(sa.select(targets)).all():
        previous = str((presence or {}).get("previous_digest", ""))[:64]
        if previous:
            connection.execute(sa.update(kept).where(kept.c.id == target).values(previous_digest=previous))


def downgrade() -> None:
    with op.batch_alter_table("edgeflow_targets", schema=None) as batch_op:
        batch_op.drop_index("ix_edgeflow_targets_previous")
        batch_op.drop_index("ix_edgeflow_targets_actual")
        batch_op.drop_column("previous_digest")
    for name in _TABLES:
        op.drop_table(name)
