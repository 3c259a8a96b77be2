"""The thread that brings reports, telemetry and presence to the server: over MQTT when it is there, else by
HTTP.

A record leaves the spool only when the server says that it is stored.
"""

from __future__ import annotations

import collections
import logging
import random
import time
import zlib
from collections.abc import Callable

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.core import backoff
from edgeflow_agent.link.http import DeviceApi
from edgeflow_agent.link.mqtt import MqttLink
from edgeflow_agent.runtime.outlet import Outlet
from edgeflow_agent.runtime.turns import Turns
from edgeflow_agent.store.learned import LearnedBaselines
from edgeflow_agent.store.spool import Spool
from edgeflow_agent.wire import documents, telemetry
from edgeflow_agent.wire.documents import Presence, PresenceKind, Report, ReportsRequest, Stored
from edgeflow_agent.wire.states import State
from edgeflow_agent.wire.telemetry import BaselineUpload, TelemetryRequest, TelemetryWindow
from edgeflow_agent.wire.topics import Kind

logger = logging.getLogger(__name__)

_HTTP_BATCH = 25
_MAX_BACKOFF_S = 60.0
_REVOKED_RETRY_S = 60.0
_WINDOWS_BATCH = 10
_WINDOWS_BYTES = 512 * 1024  # in one request
# A server of before there was telemetry may be updated some day.
_NO_TELEMETRY_S = 600.0
_GOODBYE_WAIT_S = 1.0
# Answers that say that the message itself is at fault.
_NEVER = (400, 413, 422)


class Forwarder:
    """Empties the spools. `stored`, `connected` and `wake` may be called from any thread."""

    def __init__(
        self,
        reports: Spool[Report],
        windows: Spool[TelemetryWindow],
        learned: LearnedBaselines,
        api: Callable[[], DeviceApi],
        presence: Callable[[PresenceKind], Presence],
        *,
        resend_s: float,
    ) -> None:
        self._reports = Outlet(reports, resend_s=resend_s)
        self._windows = Outlet(windows, resend_s=resend_s)
        self._learned = learned
        self._api = api
        self._presence = presence
        self._resend_s = resend_s
        self.heartbeat_s = 15.0
        self.link: MqttLink | None = None
        self._confirmed: collections.deque[Stored] = collections.deque(maxlen=1000)
        self._birth = True
        # The MQTT session in which this device was last introduced.
        self._session: tuple[MqttLink | None, int] = (None, 0)
        self._heartbeat_at = float("-inf")
        self._http_at = float("-inf")  # not before
        self._http_failures = 0
        self._http_batch = _HTTP_BATCH
        self._windows_batch = _WINDOWS_BATCH
        self._windows_at = float("-inf")  # not before
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
        self._reports.send_again()
        self._windows.send_again()
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
            self._windows_over_http(unheard=True)
        else:
            self._over_http(presence_due=self._heartbeat_due())
            self._windows_over_http()
        self._forget_confirmed()
        return self._pause()

    def _pause(self) -> float:
        now = time.monotonic()
        due = [self._heartbeat_at + self.heartbeat_s, self._reports.due_at(now), self._windows.due_at(now)]
        link = self.link
        if link is None or not link.connected:
            due = [max(min(due), self._http_at)]
        return min(max(min(due) - now, 0.05), 60.0)

    def _heartbeat_due(self) -> bool:
        return self._birth or time.monotonic() - self._heartbeat_at >= self.heartbeat_s

    def _forget_confirmed(self) -> None:
        while self._confirmed:
            stored = self._confirmed.popleft()
            self._reports.stored(stored)
            self._windows.stored(stored)

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
        # While HTTP takes nothing, it has no turn.
        now = time.monotonic()
        for report in self._reports.due(room, unheard=False if now >= self._http_at else None):
            ack = report.state in (State.ACCEPTED, State.REJECTED)
            if not link.publish(Kind.ACK if ack else Kind.STATUS, documents.encode(report)):
                return
            self._reports.mark([report])
        heard = False if now >= max(self._http_at, self._windows_at) else None
        for window in self._windows.due(min(link.room(), _WINDOWS_BATCH), unheard=heard):
            if not link.publish(Kind.TELEMETRY, telemetry.pack(window)):
                return
            self._windows.mark([window])

    def _over_http(self, *, presence_due: bool, unheard: bool | None = None) -> None:
        if time.monotonic() < self._http_at:
            return
        while not self._turns.stopping.is_set():
            reports = self._reports.due(self._http_batch, unheard=unheard)
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
                    self._reports.mark(reports)  # the next turn is MQTT's again
                self._http_failed(error)
                return
            self._reports.mark(reports)
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
            self._reports.drop(reports[0].seq)

    def _windows_over_http(self, *, unheard: bool | None = None) -> None:
        while not self._turns.stopping.is_set():
            now = time.monotonic()
            if now < max(self._http_at, self._windows_at):
                return
            windows = _that_fit(self._windows.due(self._windows_batch, unheard=unheard))
            try:
                self._send_learned()
                if not windows:
                    return
                response = self._api().telemetry(
                    TelemetryRequest(windows=tuple(map(telemetry.pack, windows)))
                )
            except errors.EdgeflowError as error:
                self._windows_failed(error, windows)
                if unheard:
                    self._windows.mark(windows)  # the next turn is MQTT's again
                return
            self._windows.mark(windows)
            self._windows_batch = _WINDOWS_BATCH
            for stored in response.stored:
                self._windows.stored(stored)
            for number, why in response.refused.items():
                if number.isdecimal() and int(number) < len(windows):
                    logger.error("the server refuses a window of telemetry for good; it is dropped: %s", why)
                    self._windows.drop(windows[int(number)].seq)

    def _send_learned(self) -> None:
        """Before windows that are counted against it; no message of MQTT holds it."""
        for digest, content in self._learned.unsent():
            try:
                packed = zlib.compress(content)
                self._api().baseline(BaselineUpload(digest=digest, baseline=packed))
            except errors.TransferError as error:
                if error.status not in _NEVER:
                    raise
                logger.error("the server refuses a learned baseline for good: %s", error)
            self._learned.sent(digest)

    def _windows_failed(self, error: errors.EdgeflowError, windows: list[TelemetryWindow]) -> None:
        status = error.status if isinstance(error, errors.TransferError) else 0
        if status == 404:
            self._windows_at = time.monotonic() + _NO_TELEMETRY_S
            logger.warning("this server takes no telemetry; windows wait")
            return
        if status in _NEVER:
            self._windows_batch = 1
            if len(windows) == 1:
                logger.error("the server refuses a window of telemetry for good; it is dropped: %s", error)
                self._windows.drop(windows[0].seq)
                return
        self._http_failed(error)

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
                reports = tuple(self._reports.spool.pending(limit=_HTTP_BATCH))
                response = self._api().reports(ReportsRequest(presence=presence, reports=reports))
                for stored in response.stored:
                    self._reports.stored(stored)
        except (errors.EdgeflowError, msgspec.MsgspecError, OSError) as error:
            logger.info("the server does not hear the goodbye: %s", error)


def _that_fit(windows: list[TelemetryWindow]) -> list[TelemetryWindow]:
    """The first of them, as many as one request holds."""
    size = 0
    found: list[TelemetryWindow] = []
    for window in windows:
        size += len(telemetry.pack(window))
        if found and size > _WINDOWS_BYTES:
            break
        found.append(window)
    return found
