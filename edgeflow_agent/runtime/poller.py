"""The thread that asks the server over HTTP: session, trust, and the desired document.

It goes on at a slow rate while MQTT is up, so that a lost message heals by itself. What the server thinks of
this device's credential shows here first, so it is exchanged here.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from edgeflow_agent import errors
from edgeflow_agent.core import backoff
from edgeflow_agent.link.http import DeviceApi
from edgeflow_agent.runtime.inbox import Inbox
from edgeflow_agent.runtime.rotation import Rotation
from edgeflow_agent.runtime.turns import Turns
from edgeflow_agent.wire.documents import Session

logger = logging.getLogger(__name__)

_REVOKED_RETRY_S = 60.0
_SESSION_EVERY_POLLS = 12
_MAX_BACKOFF_S = 60.0
_TRUST_EVERY_S = 1.0


class Poller:
    """Level-triggered: every turn asks for everything that it needs to know."""

    def __init__(
        self,
        api: Callable[[], DeviceApi],
        inbox: Callable[[], Inbox],
        *,
        generation: Callable[[], int],
        mqtt_connected: Callable[[], bool],
        on_session: Callable[[Session], None],
        rotation: Rotation,
    ) -> None:
        self._api = api
        self._inbox = inbox
        self._generation = generation
        self._mqtt_connected = mqtt_connected
        self._on_session = on_session
        self._rotation = rotation
        self._session: Session | None = None
        self._polls = 0
        self._etag = ""
        self._failures = 0
        self._last_error = ""
        self._want_trust = False
        self._trust_at = float("-inf")
        self._turns = Turns("poller", self._turn)

    def start(self) -> None:
        """Begin to ask."""
        self._turns.start()

    def stop(self, timeout_s: float = 15.0) -> None:
        """Ask no more; may be called twice."""
        self._turns.stop(timeout_s)

    def wake(self) -> None:
        """Ask now."""
        self._turns.wake()

    def want_trust(self) -> None:
        """Fetch the trust document: somebody signed with a key that is not known yet."""
        self._want_trust = True
        self._turns.wake()

    def forget_etag(self) -> None:
        """The document was not acted on: the next answer has to carry it again."""
        self._etag = ""

    def _turn(self) -> float:
        """Ask once; return how long to wait."""
        if self._failures:
            # A storm of wake-ups must not become a storm of failing requests.
            self._turns.stopping.wait(0.2)
        try:
            session = self._talk()
            if session.rotate and self._rotation.accepted():
                self._turns.wake()  # the first use of the new one ends the old one
        except errors.TransferError as error:
            return self._failed(error)
        except errors.EdgeflowError as error:
            return self._failed(errors.TransferError(f"the server's answer is of no use: {error}"))
        except Exception:
            # The network brings anything; this thread must be there tomorrow.
            logger.exception("polling failed in an unexpected way")
            return _REVOKED_RETRY_S
        if self._last_error:
            logger.info("the server answers again")
        self._failures, self._last_error = 0, ""
        delay = session.slow_poll_s if self._mqtt_connected() else session.poll_s
        # Spread, so that a fleet that was switched on together does not stay in step.
        return max(delay, 0.1) * random.uniform(0.9, 1.1)  # noqa: S311

    def _talk(self) -> Session:
        api = self._api()
        if self._session is None or self._polls % _SESSION_EVERY_POLLS == 0:
            self._session = api.session()
            self._on_session(self._session)
        self._polls += 1
        inbox = self._inbox()
        wanted = self._want_trust or self._session.trust_version > inbox.trust_version
        # A flood of documents that nobody signed must not become a flood of requests.
        if wanted and time.monotonic() - self._trust_at >= _TRUST_EVERY_S:
            self._want_trust, self._trust_at = False, time.monotonic()
            inbox.update_trust(api.trust())
        answer = api.desired(etag=self._etag, generation=self._generation())
        if answer.status == 200:
            self._etag = answer.etag
            if not inbox.receive(answer.body):
                self._etag = ""
        return self._session

    def _failed(self, error: errors.TransferError) -> float:
        self._failures += 1
        text = str(error)
        if text != self._last_error:
            # Once per cause: a device may be offline for weeks.
            logger.warning("%s", text)
            self._last_error = text
        if error.status == 401:
            return 0.0 if self._rotation.refused() else _REVOKED_RETRY_S
        base = min(self._session.poll_s if self._session else 1.0, 5.0)
        return backoff.delay(self._failures, random.random(), base=base, ceiling=_MAX_BACKOFF_S)  # noqa: S311
