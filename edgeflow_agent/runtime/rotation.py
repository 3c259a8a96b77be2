"""Exchanging the device's credential for a new one when it is old, without ever being without a living one.

The server lets both live until the new one is first used. Here the new one is on disk before its first use,
and the old one stays beside it: whichever the server accepts is used. So the power may be cut between any two
steps, every answer may be lost, and the server may be restored from a backup of the day before.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

from edgeflow_agent import errors
from edgeflow_agent.core import backoff, rotation
from edgeflow_agent.link.http import DeviceApi
from edgeflow_agent.store import crashpoints
from edgeflow_agent.store.identity import CurrentIdentity
from edgeflow_agent.wire import tokens

logger = logging.getLogger(__name__)

_BACKOFF_S = 60.0
_MAX_BACKOFF_S = 3600.0


class Rotation:
    """Called by the poller's thread alone. `on_change` hears that another credential is in use."""

    def __init__(
        self,
        identity: CurrentIdentity,
        api: Callable[[str], DeviceApi],
        *,
        days: float,
        on_change: Callable[[], None],
    ) -> None:
        self._identity = identity
        self._api = api
        self._days = days
        self._on_change = on_change
        self._failures = 0
        self._not_before = float("-inf")

    def accepted(self) -> bool:
        """The server has just accepted the credential in use: exchange it if it is old; whether it was."""
        now = datetime.now(UTC)
        if not rotation.is_due(self._identity.now.credential_at, now, self._days):
            self._failures = 0
            return False
        if time.monotonic() < self._not_before:
            return False
        try:
            self._identity.change()  # ask only where the answer can be kept
            old = self._identity.now.credential
            new = self._api(old).rotate()
            if tokens.parse_credential(new) is None:
                raise errors.ContractError("the server's answer holds no valid credential")
            crashpoints.reach("rotate.answered")
            self._identity.change(credential=new, previous_credential=old, credential_at=now)
            crashpoints.reach("rotate.written")
        except (errors.EdgeflowError, OSError) as error:
            self._put_off()
            logger.warning("the credential stays as it is for now: %s", error)
            return False
        logger.info("a new credential is in use")
        self._on_change()
        return True

    def refused(self) -> bool:
        """The server refuses the credential in use: go back to the one before if it accepts that; whether
        it does. While it accepts neither, both are kept."""
        identity = self._identity.now
        if not identity.previous_credential:
            return False
        try:
            self._api(identity.previous_credential).session()
            self._identity.change(
                credential=identity.previous_credential,
                previous_credential=identity.credential,
                credential_at=None,  # it is old: due again
            )
        except (errors.EdgeflowError, OSError):
            return False
        self._put_off()
        logger.warning("the server refuses the newest credential; the one before is in use again")
        self._on_change()
        return True

    def _put_off(self) -> None:
        self._failures += 1
        # Backing off is no secret of cryptography.
        delay = backoff.delay(self._failures, random.random(), base=_BACKOFF_S, ceiling=_MAX_BACKOFF_S)  # noqa: S311
        self._not_before = time.monotonic() + delay
