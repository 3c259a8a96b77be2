"""What a simulated fleet keeps: one SQLite file with a row for each device, used by one process at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgeflow_agent import errors, typed
from edgeflow_mlflow.simulation.memory import Identity, Memory

_SCHEMA = """
CREATE TABLE IF NOT EXISTS device (
    target TEXT PRIMARY KEY, enrolment TEXT NOT NULL, identity BLOB, memory BLOB) WITHOUT ROWID;
"""


class Kept(NamedTuple):
    """One device as it was left."""

    identity: Identity
    memory: Memory


class FleetFolder:
    """The file `fleet.db`, locked. It holds credentials: only its user may read it."""

    def __init__(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise errors.StateError(
                f"cannot use the state folder {path}: {error.strerror}; choose another with --state-dir"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise errors.StateError(
                f"another simulation runs on the state folder {path}; stop it, or use another --state-dir"
            ) from error
        file = path / "fleet.db"
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            self._connection = sqlite3.connect(file, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            os.close(self._lock)
            raise errors.StateError(f"cannot use {file}: {error}; move it away to begin anew") from error

    def load(self, targets: Iterable[str]) -> dict[str, Kept]:
        """Those of these devices that are enrolled."""
        wanted, found = set(targets), {}
        for target, identity, memory in self._connection.execute(
            "SELECT target, identity, memory FROM device WHERE identity IS NOT NULL"
        ):
            if target in wanted:
                found[target] = Kept(
                    typed.read(Identity, identity),
                    typed.read(Memory, memory) if memory else Memory(),
                )
        return found

    def enrolments(self, targets: Iterable[str]) -> dict[str, str]:
        """For each device the key that makes its enrolment one and the same, kept before it is used."""
        rows = [(target, secrets.token_hex(16)) for target in targets]
        with self._transaction():
            self._connection.executemany("INSERT OR IGNORE INTO device VALUES (?, ?, NULL, NULL)", rows)
        known = dict(self._connection.execute("SELECT target, enrolment FROM device"))
        return {target: known[target] for target, _ in rows}

    def enrolled(self, identities: Iterable[Identity]) -> None:
        """Keep who they are, before they say a word."""
        rows = [(msgspec.json.encode(item), item.target) for item in identities]
        with self._transaction():
            self._connection.executemany("UPDATE device SET identity = ? WHERE target = ?", rows)

    def keep(self, devices: Iterable[Kept]) -> None:
        """Keep what they know now."""
        rows = [
            (msgspec.json.encode(identity), msgspec.json.encode(memory), identity.target)
            for identity, memory in devices
        ]
        with self._transaction():
            self._connection.executemany("UPDATE device SET identity = ?, memory = ? WHERE target = ?", rows)

    def _transaction(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection  # as a context manager: commit, or roll back

    def close(self) -> None:
        """Give the folder back."""
        self._connection.close()
        os.close(self._lock)
