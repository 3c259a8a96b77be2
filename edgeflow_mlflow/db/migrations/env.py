"""What alembic runs: our tables only, in one transaction, on the connection it is given."""

from __future__ import annotations

from alembic import context

from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.migrate import VERSION_TABLE, include_object

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=models.Base.metadata,
    version_table=VERSION_TABLE,
    include_object=include_object,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
