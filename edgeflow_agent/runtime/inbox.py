"""The one door for desired documents, whichever way they came: verified here, or refused."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from edgeflow_agent import errors
from edgeflow_agent.runtime.deployer import Offer
from edgeflow_agent.runtime.reporting import Reporter, envelope_digest
from edgeflow_agent.store.identity import CurrentIdentity
from edgeflow_agent.wire import documents, signing

logger = logging.getLogger(__name__)


class Inbox:
    """Verifies documents with the keys of the trust document, and keeps that document up to date."""

    def __init__(
        self,
        identity: CurrentIdentity,
        reporter: Reporter,
        deliver: Callable[[Offer], None],
        want_trust: Callable[[], None],
    ) -> None:
        self._identity = identity
        self._keys = identity.now.keys()
        self._reporter = reporter
        self._deliver = deliver
        self._want_trust = want_trust
        self._lock = threading.Lock()
        self._unverified: bytes | None = None
        self._expires_at: datetime | None = None

    @property
    def trust_version(self) -> int:
        """The trust document that is in force."""
        return self._identity.now.trust_version

    @property
    def stale(self) -> bool:
        """Whether the newest document that this device has seen is past its expiry: somebody may be
        holding newer ones back."""
        return self._expires_at is not None and datetime.now(UTC) > self._expires_at

    def receive(self, envelope: bytes) -> bool:
        """Verify a document and pass it on; False when it was refused or has to wait for trust."""
        with self._lock:
            keys = self._keys
        try:
            offer = self._verify(envelope, keys)
        except errors.SignatureError:
            # Perhaps a key that came after our trust document: ask once, then judge.
            with self._lock:
                self._unverified = envelope[: documents.MAX_ENVELOPE_BYTES]
            self._want_trust()
            return False
        except errors.ContractError as error:
            self._refuse(envelope, error)
            return False
        self._accept(offer)
        return True

    def _verify(self, envelope: bytes, keys: dict[str, bytes]) -> Offer:
        identity = self._identity.now
        desired, key = signing.verify_desired(envelope, keys, fleet=identity.fleet, target=identity.target)
        return Offer(desired, key, envelope_digest(envelope))

    def _accept(self, offer: Offer) -> None:
        expires_at = offer.desired.expires_at
        if self._expires_at is None or expires_at > self._expires_at:
            self._expires_at = expires_at
        self._deliver(offer)

    def _refuse(self, envelope: bytes, error: errors.ContractError) -> None:
        self._reporter.refused(envelope_digest(envelope), reason=error.reason, message=str(error))

    def update_trust(self, envelope: bytes) -> None:
        """Take over a newer trust document that the pinned root key signed, then judge what waited."""
        try:
            trust = signing.verify_trust(envelope, self._identity.now.root())
            self._check_trust(trust)
        except errors.ContractError as error:
            logger.error("refused a trust document: %s", error)
            self._reporter.refused(envelope_digest(envelope), reason="trust", message=str(error))
        else:
            if trust.version > self.trust_version:
                self._identity.change(trust=envelope.decode(), trust_version=trust.version)
                with self._lock:
                    self._keys = signing.trusted_keys(trust)
                logger.info("trust document version %d is in force", trust.version)
        self._judge_waiting()

    def _check_trust(self, trust: documents.Trust) -> None:
        if trust.fleet != self._identity.now.fleet:
            raise errors.ContractError("the trust document belongs to another server", reason="wrong_fleet")
        if trust.version < self.trust_version:
            raise errors.ContractError(
                f"trust document version {trust.version} is older than {self.trust_version}, "
                "which this device has seen",
                reason="trust",
            )

    def _judge_waiting(self) -> None:
        with self._lock:
            envelope, self._unverified = self._unverified, None
            keys = self._keys
        if envelope is None:
            return
        try:
            offer = self._verify(envelope, keys)
        except errors.ContractError as error:
            self._refuse(envelope, error)
        else:
            self._accept(offer)
