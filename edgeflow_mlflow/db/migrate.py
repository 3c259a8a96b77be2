"""Bring our tables up to date: alembic, configured in code, under our own version table and a lock."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.sql.schema import SchemaItem

from edgeflow_mlflow.db import base, models
from edgeflow_mlflow.db.engine import Database

VERSION_TABLE = "alembic_version_edgeflow"
# Any 64-bit number that nobody else in the database uses as an advisory lock.
_LOCK = 0x45444745_464C4F57


def include_object(_item: SchemaItem, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:
    """Only our own tables: the database may be MLflow's."""
    return kind != "table" or (name or "").startswith(base.PREFIX)


def alembic_config(connection: Connection | None = None) -> Config:
    """What an alembic command needs; no ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(database: Database) -> None:
    """Upgrade to the newest revision. Any number of processes may call this at once."""
    with database.engine.connect() as connection, _locked(database, connection):
        command.upgrade(alembic_config(connection), "head")
        connection.commit()


@dataclass(frozen=True, kw_only=True)
class Revisions:
    """Which revision the tables have (empty: none yet), and which this release has."""

    present: str
    newest: str


def revisions(database: Database) -> Revisions:
    """How far the tables are."""
    newest = ScriptDirectory.from_config(alembic_config()).get_current_head() or ""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        return Revisions(present=context.get_current_revision() or "", newest=newest)


def differences(database: Database) -> list[object]:
    """What the tables lack against the models; empty when migrations and models agree."""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"version_table": VERSION_TABLE, "include_object": include_object, "compare_type": True},
        )
        return list(compare_metadata(context, models.Base.metadata))


@contextlib.contextmanager
def _locked(database: Database, connection: Connection) -> Iterator[None]:
    backend = database.url.get_backend_name()
    if backend == "sqlite" and database.url.database:
        lock = Path(database.url.database + ".migrate-lock")
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    elif backend == "postgresql":
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        connection.commit()
        try:
            yield
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            connection.commit()
    else:
        yield
