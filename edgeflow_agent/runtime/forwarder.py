"""The thread that brings reports and presence to the server: over MQTT when it is there, else by HTTP.

A report leaves the spool only when the server says that it is stored.
"""

from __future__ import annotations

import collections
import logging
import random
import time
from collections.abc import Callable

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.core import backoff
from edgeflow_agent.link.http import DeviceApi
from edgeflow_agent.link.mqtt import MqttLink
from edgeflow_agent.runtime.turns import Turns
from edgeflow_agent.store.spool import Spool
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import Presence, PresenceKind, Report, ReportsRequest, Stored
from edgeflow_agent.wire.states import State
from edgeflow_agent.wire.topics import Kind

logger = logging.getLogger(__name__)

_HTTP_BATCH = 25
_MAX_BACKOFF_S = 60.0
_REVOKED_RETRY_S = 60.0
# Every so many sends over MQTT that nobody confirms, one goes over HTTP: whoever should store the report
# may not be listening there.
_SENDS_BEFORE_HTTP = 2
_GOODBYE_WAIT_S = 1.0
# Answers that say that the message itself is at fault.
_NEVER = (400, 413, 422)


class _Sent:
    """When a report was last sent, and how often."""

    __slots__ = ("at", "times")

    def __init__(self) -> None:
        self.at = float("-inf")
        self.times = 0


_NEVER_SENT = _Sent()


class Forwarder:
    """Empties the spool. `stored`, `connected` and `wake` may be called from any thread."""

    def __init__(
        self,
        spool: Spool,
        api: Callable[[], DeviceApi],
        presence: Callable[[PresenceKind], Presence],
        *,
        resend_s: float,
    ) -> None:
        self._spool = spool
        self._api = api
        self._presence = presence
        self._resend_s = resend_s
        self.heartbeat_s = 15.0
        self.link: MqttLink | None = None
        self._sent: dict[int, _Sent] = {}
        self._confirmed: collections.deque[Stored] = collections.deque(maxlen=1000)
        self._birth = True
        # The MQTT session in which this device was last introduced.
        self._session: tuple[MqttLink | None, int] = (None, 0)
        self._heartbeat_at = float("-inf")
        self._http_at = float("-inf")  # not before
        self._http_failures = 0
        self._http_batch = _HTTP_BATCH
        self._last_error = ""
        self._turns = Turns("forwarder", self._turn_safely, at_end=self._goodbye)

    def start(self) -> None:
        """Begin to send."""
        self._turns.start()

    def stop(self, timeout_s: float = 15.0) -> None:
        """Say goodbye and end; may be called twice."""
        self._turns.stop(timeout_s)

    def wake(self) -> None:
        """There is something new to send."""
        self._turns.wake()

    def announce(self) -> None:
        """Tell what this device is now, at the next turn."""
        self._heartbeat_at = float("-inf")
        self._turns.wake()

    def credential_changed(self) -> None:
        """What the server refused, it may accept now."""
        self._http_at = float("-inf")
        self._turns.wake()

    def connected(self) -> None:
        """MQTT is up (again): introduce the device, and send anew what nobody confirmed."""
        for sent in list(self._sent.values()):
            sent.at = float("-inf")
        self._turns.wake()

    def stored(self, stored: Stored) -> None:
        """The server has committed these."""
        self._confirmed.append(stored)
        self._turns.wake()

    # The thread.

    def _turn_safely(self) -> float:
        try:
            return self._turn()
        except Exception:
            # Whatever the spool or the network did: the next report needs this thread.
            logger.exception("forwarding reports failed in an unexpected way")
            return self._resend_s

    def _turn(self) -> float:
        self._forget_confirmed()
        link = self.link
        if link is not None and link.connected:
            self._over_mqtt(link)
            self._over_http(presence_due=False, unheard=True)
        else:
            self._over_http(presence_due=self._heartbeat_due())
        self._forget_confirmed()
        return self._pause()

    def _pause(self) -> float:
        now = time.monotonic()
        due = [self._heartbeat_at + self.heartbeat_s]
        if self._spool.pending_count:
            due.append(min((sent.at for sent in self._sent.values()), default=now) + self._resend_s)
        link = self.link
        if link is None or not link.connected:
            due = [max(min(due), self._http_at)]
        return min(max(min(due) - now, 0.05), 60.0)

    def _heartbeat_due(self) -> bool:
        return self._birth or time.monotonic() - self._heartbeat_at >= self.heartbeat_s

    def _forget_confirmed(self) -> None:
        while self._confirmed:
            stored = self._confirmed.popleft()
            self._spool.stored(stored)
            if stored.boot == self._spool.boot:
                for seq in stored.seqs:
                    self._sent.pop(seq, None)

    def _due(self, limit: int, *, unheard: bool | None = None) -> list[Report]:
        """The oldest reports that were never sent, or so long ago that they may be lost; with `unheard`
        only those whose turn it is to go over HTTP although MQTT is there, or only the others."""
        now = time.monotonic()
        reports = self._spool.pending(limit=limit + len(self._sent))
        # What the spool dropped for lack of room is waited for no longer.
        waiting = {report.seq for report in reports}
        oldest = reports[0].seq if reports else 0
        for seq in [seq for seq in self._sent if seq < oldest or (not reports and seq not in waiting)]:
            del self._sent[seq]
        due = [
            report
            for report in reports
            if (sent := self._sent.get(report.seq, _NEVER_SENT)).at + self._resend_s <= now
            and unheard in (None, sent.times % (_SENDS_BEFORE_HTTP + 1) == _SENDS_BEFORE_HTTP)
        ]
        return due[:limit]

    def _mark(self, reports: list[Report]) -> None:
        now = time.monotonic()
        for report in reports:
            sent = self._sent.setdefault(report.seq, _Sent())
            sent.at = now
            sent.times += 1

    def _over_mqtt(self, link: MqttLink) -> None:
        session = (link, link.session)
        introduced = not self._birth and session == self._session
        if not introduced or self._heartbeat_due():
            kind = PresenceKind.HEARTBEAT if introduced else PresenceKind.BIRTH
            if link.publish(Kind.PRESENCE, documents.encode(self._presence(kind))):
                self._birth, self._session = False, session
                self._heartbeat_at = time.monotonic()
        room = link.room()
        if room <= 0:
            return
        for report in self._due(room, unheard=False):
            ack = report.state in (State.ACCEPTED, State.REJECTED)
            if not link.publish(Kind.ACK if ack else Kind.STATUS, documents.encode(report)):
                return
            self._mark([report])

    def _over_http(self, *, presence_due: bool, unheard: bool | None = None) -> None:
        if time.monotonic() < self._http_at:
            return
        while not self._turns.stopping.is_set():
            reports = self._due(self._http_batch, unheard=unheard)
            if not reports and not presence_due:
                return
            kind = PresenceKind.BIRTH if self._birth else PresenceKind.HEARTBEAT
            request = ReportsRequest(
                presence=self._presence(kind) if presence_due else None, reports=tuple(reports)
            )
            api = self._api()
            try:
                response = api.reports(request)
            except errors.EdgeflowError as error:
                if api.credential != self._api().credential:
                    continue  # exchanged meanwhile: this answer says nothing
                self._isolate(error, reports)
                if unheard:
                    self._mark(reports)  # the next turn is MQTT's again
                self._http_failed(error)
                return
            self._mark(reports)
            self._http_failures, self._http_batch, self._last_error = 0, _HTTP_BATCH, ""
            if presence_due:
                self._birth = False
                self._heartbeat_at = time.monotonic()
                presence_due = False
            self._confirmed.extend(response.stored)
            self._forget_confirmed()

    def _isolate(self, error: errors.EdgeflowError, reports: list[Report]) -> None:
        """One report that the server will never take must not hold back all the others."""
        if not (isinstance(error, errors.TransferError) and error.status in _NEVER and reports):
            return
        self._http_batch = 1
        if len(reports) == 1:
            logger.error("the server refuses report %d for good; it is dropped", reports[0].seq)
            self._spool.drop(reports[0].seq)

    def _http_failed(self, error: errors.EdgeflowError) -> None:
        self._http_failures += 1
        if str(error) != self._last_error:
            self._last_error = str(error)
            logger.warning("reports wait: %s", error)
        if isinstance(error, errors.TransferError) and error.status == 401:
            delay = _REVOKED_RETRY_S
        else:
            delay = backoff.delay(self._http_failures, random.random(), ceiling=_MAX_BACKOFF_S)  # noqa: S311
        self._http_at = time.monotonic() + delay

    def _goodbye(self) -> None:
        try:
            self._forget_confirmed()
            presence = self._presence(PresenceKind.GOODBYE)
            link = self.link
            if link is not None and link.connected:
                self._over_mqtt(link)
                link.publish(Kind.PRESENCE, documents.encode(presence), wait_s=_GOODBYE_WAIT_S)
            elif not self._http_failures:
                reports = tuple(self._spool.pending(limit=_HTTP_BATCH))
                response = self._api().reports(ReportsRequest(presence=presence, reports=reports))
                for stored in response.stored:
                    self._spool.stored(stored)
        except (errors.EdgeflowError, msgspec.MsgspecError, OSError) as error:
            logger.info("the server does not hear the goodbye: %s", error)
