"""The reports of one device, kept until the server says that it has stored them."""

from __future__ import annotations

import msgspec

from edgeflow_agent.wire.documents import Report, Stored

# As many may be on their way over MQTT at once; as many go into one request.
AT_ONCE = 20
MOST = 1000
# As the agent does: every so many sends over MQTT that nobody confirmed, one goes over HTTP.
_SENDS_BEFORE_HTTP = 2


class _Sent:
    __slots__ = ("at", "times")

    def __init__(self) -> None:
        self.at = float("-inf")
        self.times = 0


class Outbox:
    """Oldest first. `boot` is new with every run; reports of a run before keep their own."""

    def __init__(self, boot: str, waiting: list[Report], *, resend_s: float) -> None:
        self.boot = boot
        self.dropped = 0
        self._resend_s = resend_s
        self._seq = 0
        self._waiting: dict[tuple[str, int], tuple[Report, _Sent]] = {
            (report.boot, report.seq): (report, _Sent()) for report in waiting
        }

    def __len__(self) -> int:
        return len(self._waiting)

    def waiting(self) -> list[Report]:
        """What nobody has confirmed."""
        return [report for report, _ in self._waiting.values()]

    def add(self, report: Report) -> Report:
        """Keep a report and give it its number; where there are too many, the oldest goes."""
        self._seq += 1
        numbered = msgspec.structs.replace(report, boot=self.boot, seq=self._seq)
        self._waiting[self.boot, self._seq] = (numbered, _Sent())
        if len(self._waiting) > MOST:
            del self._waiting[next(iter(self._waiting))]
            self.dropped += 1
        return numbered

    def stored(self, stored: Stored) -> bool:
        """The server has these; whether any was waited for."""
        before = len(self._waiting)
        for seq in stored.seqs:
            self._waiting.pop((stored.boot, seq), None)
        return len(self._waiting) < before

    def again(self) -> None:
        """Whatever was on its way may be lost."""
        for _, sent in self._waiting.values():
            sent.at = float("-inf")

    def take(self, now: float, *, mqtt: bool, unheard: bool | None = None) -> list[Report]:
        """What is to be sent now, marked as sent; with `unheard` only what goes over HTTP although MQTT is
        there, or only the rest."""
        room = AT_ONCE
        if mqtt:
            room -= sum(sent.at + self._resend_s > now for _, sent in self._waiting.values())
        taken: list[Report] = []
        for report, sent in self._waiting.values():
            if len(taken) >= room:
                break
            turn = sent.times % (_SENDS_BEFORE_HTTP + 1) == _SENDS_BEFORE_HTTP
            if sent.at + self._resend_s <= now and unheard in (None, turn):
                taken.append(report)
                sent.at = now
                sent.times += 1
        return taken

    def due_at(self) -> float:
        """When something is to be sent (again); infinity: never."""
        if not self._waiting:
            return float("inf")
        return min(sent.at for _, sent in self._waiting.values()) + self._resend_s
