"""One database, two kinds of transaction: reading, and writing that takes the lock at once.

SQLite: a file of our own in WAL mode; a write begins with BEGIN IMMEDIATE, because a transaction that
reads first and writes later fails at once with SQLITE_BUSY_SNAPSHOT, whatever the busy timeout.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import sqlalchemy
from sqlalchemy import event, select
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.orm import Session

from edgeflow_mlflow import errors
from edgeflow_mlflow.db import label_rows, models
from edgeflow_mlflow.db.group_commit import GroupCommit

T = TypeVar("T")
_WRITE = "edgeflow_write"
# SQLite's waiting is a look every tenth of a second: so long, a tenth of the looks find the file free.
_GAP_S = 0.01
# Elsewhere the index that keeps a second open execution from a target would not be made as it must be.
_KINDS = ("sqlite", "postgresql")


class FenceLostError(Exception):
    """Another process is the hub by now: whatever this one wanted to write must not be written."""


class Database:
    """Sessions over one engine. Safe to share between threads; make one per process."""

    def __init__(self, url: str | URL) -> None:
        label_rows.keep()
        self.url = normalise(url)
        self.engine = _engine(self.url)
        self._write_engine = self.engine.execution_options(**{_WRITE: True})
        self._fence: int | None = None
        self._group = self._new_group()

    def _new_group(self) -> GroupCommit:
        gap_s = _GAP_S if self.is_sqlite else 0.0
        return GroupCommit(self.write, not_again=FenceLostError, gap_s=gap_s)

    @property
    def is_sqlite(self) -> bool:
        """Whether one file on this host is the database."""
        return self.url.get_backend_name() == "sqlite"

    def fenced(self, fence: int) -> Database:
        """The same database for the hub: each of its writes first checks that `fence` is still its own."""
        other = Database.__new__(Database)
        other.__dict__.update(self.__dict__)
        other._fence = fence
        other._group = other._new_group()
        return other

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one consistent state and writes nothing."""
        with Session(self.engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end, or rolls back on any exception."""
        with Session(self._write_engine, expire_on_commit=False) as session, session.begin():
            if self._fence is not None:
                # FOR SHARE holds off a take-over until this commit; SQLite has the write lock already.
                held = session.scalar(
                    select(models.Lease.fence).where(models.Lease.name == "hub").with_for_update(read=True)
                )
                if held != self._fence:
                    raise FenceLostError(f"fence {self._fence} was followed by {held}")
            yield session

    def change(self, target_id: str, work: Callable[[Session], T]) -> T:
        """Run `work` in a transaction that it may share, its target locked; what it returned, committed.

        For what many devices say at once. `work` may run twice: it must change nothing but rows.
        """
        return self._group.commit(target_id, work)

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def normalise(url: str | URL) -> URL:
    """The URL with our prefix off and psycopg 3 for PostgreSQL when no driver is named."""
    try:
        text = (
            url
            if isinstance(url, URL)
            else make_url(str(url).removeprefix("edgeflow+").removeprefix("edgeflow:"))
        )
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise errors.SettingError(
            "[server] database_url is not the address of a database: give sqlite:////folder/edgeflow.db or "
            "postgresql://user:password@host/name"
        ) from error
    if text.drivername in ("postgresql", "postgres"):
        text = text.set(drivername="postgresql+psycopg")
    return text


def _engine(url: URL) -> Engine:
    if url.get_backend_name() not in _KINDS:
        raise errors.SettingError(
            f"Edgeflow keeps its rows in SQLite or PostgreSQL, not in {url.render_as_string()}: set [server] "
            "database_url (EDGEFLOW_SERVER_DATABASE_URL), for example to sqlite:////folder/edgeflow.db; "
            "MLflow may stay where it is"
        )
    options: dict[str, Any] = {
        "pool_pre_ping": True,
        "json_serializer": _to_json,
        "json_deserializer": _from_json,
    }
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": 10.0}
    else:
        options |= {"pool_size": 5, "max_overflow": 10, "pool_recycle": 1800}
    try:
        engine = sqlalchemy.create_engine(url, **options)
    except (sqlalchemy.exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise errors.SettingError(
            f"no driver for {url.render_as_string()}: {error}. "
            "For PostgreSQL: pip install 'edgeflow-mlflow[postgres]'"
        ) from error
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _to_json(value: Any) -> str:
    """The usual JSON in a tenth of the time, where it can be."""
    try:
        return msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return json.dumps(value)


def _from_json(text: str | bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return json.loads(text)


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in (
        "busy_timeout=10000",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "journal_size_limit=67108864",
        "temp_store=MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_WRITE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
