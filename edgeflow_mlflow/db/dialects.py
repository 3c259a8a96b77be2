"""What SQLite and PostgreSQL each say in their own way."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, String, any_, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session


def inserting(session: Session, table: Any) -> Any:
    """An insert that can say what to do about a row that is there already."""
    return (postgresql if _is_postgresql(session) else sqlite).insert(table)


def one_of(session: Session, column: Any, values: Collection[str]) -> ColumnElement[bool]:
    """Whether a column of text has one of the values."""
    if _is_postgresql(session):
        # One parameter: with hundreds, making and reading the statement takes longer than answering it.
        found: ColumnElement[bool] = column == any_(bindparam(None, list(values), ARRAY(String())))
    else:
        found = column.in_(values)
    return found


def lock(session: Session, key: int, *, shared: bool) -> None:
    """Hold the lock of this key to the end of the transaction, with others that share it or alone. SQLite has
    one writer at a time, which is lock enough."""
    if _is_postgresql(session):
        take = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
        session.execute(select(take(key)))


def _is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"
