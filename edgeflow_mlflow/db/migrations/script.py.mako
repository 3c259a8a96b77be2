"""${message}

Servers of the release before may still run while this is applied: add, never rename or remove what
they read.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import edgeflow_mlflow.db.models

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
