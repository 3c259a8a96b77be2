"""Indexes for what serves now, and for logged models

Servers of the release before may still run while this is applied: add, never rename or remove what
they read.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SERVED, _LOGGED = "ix_edgeflow_served_open", "ix_edgeflow_bundles_logged"


def upgrade() -> None:
    is_open = sa.text("until IS NULL")
    op.create_index(
        _SERVED,
        "edgeflow_served",
        ["bundle_id", "target_id"],
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_index(_LOGGED, "edgeflow_bundles", ["model_id"])


def downgrade() -> None:
    op.drop_index(_LOGGED, "edgeflow_bundles")
    op.drop_index(_SERVED, "edgeflow_served")
