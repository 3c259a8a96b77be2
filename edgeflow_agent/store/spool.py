"""What the server has not confirmed as stored, in SQLite, bounded, with every loss counted."""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.store import crashpoints
from edgeflow_agent.wire import documents, telemetry
from edgeflow_agent.wire.documents import Report, Stored
from edgeflow_agent.wire.telemetry import TelemetryWindow

logger = logging.getLogger(__name__)

Record = TypeVar("Record", Report, TelemetryWindow)

_MOST_REFUSED = 100
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS report (seq INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB NOT NULL);
"""


class Spool(Generic[Record]):
    """A queue of records. `boot` is random and as old as the file: together with the ever-rising `seq` it
    names a record once and for all. Where the disk cannot be written, the queue is kept in memory.

    `encode` gives a record's bytes, `decode` the record again or ContractError; `what` is the word for one.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        what: str,
        encode: Callable[[Record], bytes],
        decode: Callable[[bytes], Record],
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._what = what
        self._encode: Callable[[Record], bytes] = encode
        self._decode: Callable[[bytes], Record] = decode
        self._lock = threading.Lock()
        try:
            self._connection = self._open_file()
        except sqlite3.OperationalError as error:
            # Nothing is wrong with the file, and serving goes before reporting.
            logger.error(
                "%s cannot be written (%s); make room on the disk. Until the next start, each %s is kept in "
                "memory only",
                path,
                error,
                what,
            )
            self._connection = self._open(":memory:")
        self.boot = self._meta("boot")
        self.dropped = int(self._meta("dropped") or "0")
        row = self._connection.execute("SELECT count(*), coalesce(sum(length(payload)), 0) FROM report")
        self._count: int
        self._bytes: int
        self._count, self._bytes = row.fetchone()
        # What the disk would not take, in this order, to be tried again.
        self._refused: collections.deque[Record] = collections.deque()

    @property
    def pending_count(self) -> int:
        """How many records the server has not confirmed."""
        return self._count + len(self._refused)

    def _open_file(self) -> sqlite3.Connection:
        try:
            connection = self._open(self._path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            aside = self._path.with_name(f"{self._path.name}.corrupt-{int(time.time())}")
            self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            logger.error("the spool was damaged (%s); it was put aside as %s", error, aside.name)
            connection = self._open(self._path)
        with contextlib.suppress(OSError):  # a read-only file system; the folder is private as well
            self._path.chmod(0o600)
        return connection

    def _open(self, place: Path | str) -> sqlite3.Connection:
        connection = sqlite3.connect(place, check_same_thread=False, isolation_level=None, timeout=10)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(_SCHEMA)
            connection.execute(
                "INSERT OR IGNORE INTO meta VALUES ('boot', ?), ('dropped', '0')", (secrets.token_hex(16),)
            )
            if connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("quick_check failed")
        except BaseException:
            connection.close()
            raise
        return connection

    def _meta(self, name: str) -> str:
        row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return "" if row is None else str(row[0])

    def add(self, record: Record) -> None:
        """Keep a record and give it its number; the oldest ones go when there is no room.

        Raise sqlite3.Error when the disk does not take it. It is tried again then, with the next one and
        whenever `pending` is asked, until this process ends.
        """
        with self._lock:
            if len(self._refused) == _MOST_REFUSED:
                self._refused.popleft()
                self.dropped += 1
            self._refused.append(record)
            self._keep_refused()
        crashpoints.reach("spool.after_commit")

    def _keep_refused(self) -> None:
        while self._refused:
            self._keep(self._refused[0])
            self._refused.popleft()

    def _keep(self, record: Record) -> None:
        with self._change():
            cursor = self._connection.execute("INSERT INTO report (payload) VALUES (x'')")
            seq = int(cursor.lastrowid or 0)
            payload = self._encode(msgspec.structs.replace(record, boot=self.boot, seq=seq))
            self._connection.execute("UPDATE report SET payload = ? WHERE seq = ?", (payload, seq))
            count, size = self._count + 1, self._bytes + len(payload)
            count, size, dropped = self._make_room(count, size, newest=seq)
            crashpoints.reach("spool.before_commit")
        self._count, self._bytes, self.dropped = count, size, self.dropped + dropped

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        if self._connection.in_transaction:  # one that the disk would not let end
            self._connection.execute("ROLLBACK")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have done so by itself
                self._connection.execute("ROLLBACK")
            raise

    def _make_room(self, count: int, size: int, *, newest: int) -> tuple[int, int, int]:
        dropped = 0
        while size > self._max_bytes and count > 1:
            seq, length = self._connection.execute(
                "SELECT seq, length(payload) FROM report ORDER BY seq LIMIT 1"
            ).fetchone()
            if seq == newest:
                break
            self._connection.execute("DELETE FROM report WHERE seq = ?", (seq,))
            count, size, dropped = count - 1, size - length, dropped + 1
        if dropped:
            self._connection.execute(
                "UPDATE meta SET value = ? WHERE name = 'dropped'", (str(self.dropped + dropped),)
            )
        return count, size, dropped

    def pending(self, *, after: int = 0, limit: int = 100) -> list[Record]:
        """The oldest records above number `after`. An unreadable one is dropped and counted."""
        return self.read(self.numbers(limit=limit, after=after))

    def numbers(self, *, limit: int, after: int = 0) -> list[int]:
        """The numbers of the oldest records above `after`."""
        with self._lock:
            with contextlib.suppress(sqlite3.Error):
                self._keep_refused()
            rows = self._connection.execute(
                "SELECT seq FROM report WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
            ).fetchall()
        return [seq for (seq,) in rows]

    def read(self, numbers: Sequence[int]) -> list[Record]:
        """The records of these numbers that are still here. An unreadable one is dropped and counted."""
        with self._lock:
            rows = [
                row
                for seq in numbers
                for row in self._connection.execute("SELECT seq, payload FROM report WHERE seq = ?", (seq,))
            ]
        records = []
        for seq, payload in rows:
            try:
                records.append(self._decode(payload))
            except errors.ContractError as error:
                logger.error("%s %d in the spool is unreadable and dropped: %s", self._what, seq, error)
                self.drop(seq)
        return records

    def stored(self, stored: Stored) -> int:
        """The server has these for good: let them go. Returns how many went."""
        if stored.boot != self.boot:
            return 0
        return self._delete(list(stored.seqs), dropped=0)

    def drop(self, seq: int) -> None:
        """Give up a record, and count it."""
        self._delete([seq], dropped=1)

    def _delete(self, seqs: list[int], *, dropped: int) -> int:
        gone = 0
        with self._lock:
            with self._change():
                for seq in seqs:
                    gone += self._connection.execute("DELETE FROM report WHERE seq = ?", (seq,)).rowcount
                if dropped:
                    self._connection.execute(
                        "UPDATE meta SET value = ? WHERE name = 'dropped'", (str(self.dropped + dropped),)
                    )
                row = self._connection.execute(
                    "SELECT count(*), coalesce(sum(length(payload)), 0) FROM report"
                ).fetchone()
            self._count, self._bytes = row
            self.dropped += dropped
        return gone

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()


def of_reports(path: Path, *, max_bytes: int) -> Spool[Report]:
    """The spool of reports."""
    return Spool(
        path,
        max_bytes=max_bytes,
        what="report",
        encode=documents.encode,
        decode=functools.partial(documents.decode, Report),
    )


def of_windows(path: Path, *, max_bytes: int) -> Spool[TelemetryWindow]:
    """The spool of windows of telemetry."""
    return Spool(path, max_bytes=max_bytes, what="window", encode=telemetry.pack, decode=telemetry.unpack)
