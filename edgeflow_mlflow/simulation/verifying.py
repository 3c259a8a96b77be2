"""Whom a simulated device believes: the same checks, in the same order, as on a real one."""

from __future__ import annotations

import base64
import binascii

from edgeflow_agent import errors
from edgeflow_agent.wire import documents, signing, tokens
from edgeflow_agent.wire.documents import DesiredState, EnrolResponse
from edgeflow_mlflow.simulation.memory import Identity


def identity(answer: EnrolResponse, target: str, token: tokens.Token) -> Identity:
    """What enrolment gave; raise ContractError when the answer is not from the server of the token."""
    root = root_key(answer.root_key)
    if signing.fingerprint(root) != token.fingerprint:
        raise errors.SignatureError(
            "the server's root key is not the one that the token names: this is another server than the one "
            "that issued the token; check --server",
            reason="root_key",
        )
    if answer.target != target or tokens.parse_credential(answer.credential) is None:
        raise errors.ContractError("the server's answer to the enrolment is of no use")
    if signing.verify_trust(answer.trust.encode(), root).fleet != answer.fleet:
        raise errors.ContractError("the server's trust document belongs to another server")
    return Identity(
        target=target,
        fleet=answer.fleet,
        credential=answer.credential,
        root_key=answer.root_key,
        trust=answer.trust,
        mqtt=answer.mqtt,
    )


def root_key(text: str) -> bytes:
    """The 32 bytes of a root key in base64."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise errors.ContractError("the root key is not valid base64", reason="root_key") from error
    if len(raw) != 32:
        raise errors.ContractError(f"the root key has {len(raw)} bytes instead of 32", reason="root_key")
    return raw


class Verifier:
    """The keys of one device's trust document, and the document itself."""

    def __init__(self, known: Identity) -> None:
        self._target = known.target
        self._fleet = known.fleet
        self._root = root_key(known.root_key)
        self._take(signing.verify_trust(known.trust.encode(), self._root))

    def _take(self, trust: documents.Trust) -> None:
        self.version = trust.version
        self._keys = signing.trusted_keys(trust)

    def desired(self, envelope: bytes) -> tuple[DesiredState, str]:
        """A document for this device and the key that signed it; raise ContractError otherwise."""
        return signing.verify_desired(envelope, self._keys, fleet=self._fleet, target=self._target)

    def trust(self, envelope: bytes) -> bool:
        """Take over a trust document, when it is newer; raise ContractError when it must not be believed."""
        trust = signing.verify_trust(envelope, self._root)
        if trust.fleet != self._fleet:
            raise errors.ContractError("the trust document belongs to another server", reason="wrong_fleet")
        if trust.version < self.version:
            raise errors.ContractError(
                f"trust document version {trust.version} is older than {self.version}", reason="trust"
            )
        newer = trust.version > self.version
        self._take(trust)
        return newer
