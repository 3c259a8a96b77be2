"""Who this device is and whom it trusts: written at enrolment, kept in one private file."""

from __future__ import annotations

import base64
import binascii
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from edgeflow_agent import errors, typed
from edgeflow_agent.store import durable
from edgeflow_agent.wire import documents, signing

_NAME = "identity.json"
_PENDING = "enrolment.json"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The device's name, its credential, and the root key that it pinned. `trust` is the newest trust
    document as the server sent it, signature included. `previous_credential` is the one before the last
    rotation, to go back to when the server refuses the new one; `credential_at` is when the one in use came,
    by the device's clock (None: not known)."""

    target: str
    fleet: str
    server_url: str
    credential: str
    root_key: str
    trust: str
    trust_version: int = 0
    mqtt: str = ""
    previous_credential: str = ""
    credential_at: datetime | None = None

    def root(self) -> bytes:
        """The raw root public key."""
        return decode_root_key(self.root_key)

    def keys(self) -> dict[str, bytes]:
        """The keys that may sign desired documents, from the trust document, verified again."""
        return signing.trusted_keys(signing.verify_trust(self.trust.encode(), self.root()))


def decode_root_key(text: str) -> bytes:
    """The 32 bytes of a root key in base64; raise ContractError when it is none."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise errors.ContractError("the root key is not valid base64", reason="root_key") from error
    if len(raw) != 32:
        raise errors.ContractError(f"the root key has {len(raw)} bytes instead of 32", reason="root_key")
    return raw


class IdentityFile:
    """The identity on disk, and the enrolment that is under way."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _NAME
        self._pending = state_dir / _PENDING

    def read(self) -> Identity | None:
        """The identity; None before enrolment. Raise StateError when it is damaged."""
        try:
            data = durable.patiently(self._path.read_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise errors.StateError(f"cannot read {self._path}: {error.strerror}") from error
        try:
            identity = typed.read(Identity, data)
            identity.keys()
        except (msgspec.MsgspecError, errors.ContractError) as error:
            raise errors.StateError(
                f"{self._path} is damaged ({error}); enrol again with `edgeflow-agent enroll --force` and a "
                "token from `edgeflow tokens create --target NAME`"
            ) from error
        return identity

    def write(self, identity: Identity) -> None:
        """Keep it for good, before it is used."""
        durable.replace(self._path, msgspec.json.encode(identity))

    def begin_enrolment(self, request: documents.EnrolRequest) -> documents.EnrolRequest:
        """The request to send: the one that a lost answer left behind for the same token and target, so
        that its idempotency key is used again; otherwise `request`, kept first."""
        try:
            pending = documents.decode(documents.EnrolRequest, self._pending.read_bytes())
        except (OSError, errors.ContractError):
            pending = None
        if pending is not None and (pending.token, pending.target) == (request.token, request.target):
            return pending
        durable.replace(self._pending, documents.encode(request))
        return request

    def abandon_enrolment(self) -> None:
        """The server said no for good: the token is not kept."""
        durable.remove(self._pending)

    def finish_enrolment(self, identity: Identity) -> None:
        """Keep the answer, then forget the question: it holds the token."""
        self.write(identity)
        durable.remove(self._pending)


class CurrentIdentity:
    """The identity of a running agent, for all its threads. A change is on disk before anybody sees it."""

    def __init__(self, file: IdentityFile, identity: Identity) -> None:
        self._file = file
        self._now = identity
        self._lock = threading.Lock()

    @property
    def now(self) -> Identity:
        """As it is now."""
        return self._now

    def change(self, **changes: Any) -> None:
        """Take over these fields; raise OSError, with nothing changed, when they cannot be kept."""
        with self._lock:
            identity = msgspec.structs.replace(self._now, **changes)
            self._file.write(identity)
            self._now = identity
