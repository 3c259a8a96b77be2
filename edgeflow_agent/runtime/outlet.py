"""Which records of a spool are to be sent now: never sent, or so long ago that they may be lost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Generic

from edgeflow_agent.store.spool import Record, Spool
from edgeflow_agent.wire.documents import Stored

# Every so many sends over MQTT that nobody confirms, one goes over HTTP: whoever should store the record may
# not be listening there.
_SENDS_BEFORE_HTTP = 2


class _Sent:
    """When a record was last sent, and how often."""

    __slots__ = ("at", "times")

    def __init__(self) -> None:
        self.at = float("-inf")
        self.times = 0


_NEVER_SENT = _Sent()


class Outlet(Generic[Record]):
    """What was sent of one spool, and what of it is confirmed. Used by the forwarder's thread; `send_again`
    may be called from any."""

    def __init__(self, spool: Spool[Record], *, resend_s: float) -> None:
        self.spool: Spool[Record] = spool
        self._resend_s = resend_s
        self._sent: dict[int, _Sent] = {}

    def send_again(self) -> None:
        """Whatever nobody has confirmed is due."""
        for sent in list(self._sent.values()):
            sent.at = float("-inf")

    def stored(self, stored: Stored) -> None:
        """The server has these for good, if they are of this spool."""
        if stored.boot == self.spool.boot:
            self.spool.stored(stored)
            for seq in stored.seqs:
                self._sent.pop(seq, None)

    def drop(self, seq: int) -> None:
        """The server will never take this one: give it up, and count it."""
        self.spool.drop(seq)
        self._sent.pop(seq, None)

    def due(self, limit: int, *, unheard: bool | None = None) -> list[Record]:
        """The oldest that are due; with `unheard` only those whose turn it is to go over HTTP although MQTT
        is there, or only the others."""
        if not self.spool.pending_count:
            return []
        now = time.monotonic()
        numbers = self.spool.numbers(limit=limit + len(self._sent))
        # What the spool dropped for lack of room is waited for no longer.
        oldest = numbers[0] if numbers else 0
        for seq in [seq for seq in self._sent if seq < oldest or not numbers]:
            del self._sent[seq]
        due = [
            seq
            for seq in numbers
            if (sent := self._sent.get(seq, _NEVER_SENT)).at + self._resend_s <= now
            and unheard in (None, sent.times % (_SENDS_BEFORE_HTTP + 1) == _SENDS_BEFORE_HTTP)
        ]
        return self.spool.read(due[:limit])

    def mark(self, records: Sequence[Record]) -> None:
        """These were sent just now."""
        now = time.monotonic()
        for record in records:
            sent = self._sent.setdefault(record.seq, _Sent())
            sent.at = now
            sent.times += 1

    def due_at(self, now: float) -> float:
        """When something is due next, by the monotonic clock; never without records."""
        if not self.spool.pending_count:
            return float("inf")
        return min((sent.at for sent in self._sent.values()), default=now) + self._resend_s
