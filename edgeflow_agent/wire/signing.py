"""Signed envelopes (DSSE, Ed25519): sign on the server, verify on the device, bytes before meaning.

The signature covers the pre-authentication encoding of payload type and payload, so there is one
algorithm, no algorithm field and no canonical JSON. Verification looks at bytes; only what it returns
may be parsed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from datetime import datetime

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgeflow_agent import errors, typed
from edgeflow_agent.wire import documents

DESIRED = "application/vnd.edgeflow.desired.v1+json"
TRUST = "application/vnd.edgeflow.trust.v1+json"
MAX_SIGNATURES = 8


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keyid: str
    sig: str


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    payload_type: str
    payload: str
    signatures: list[_Signature]


def raw_public_key(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def key_id(raw: bytes) -> str:
    """The name of a public key: the first 16 hex digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(raw).hexdigest()[:16]


def fingerprint(raw: bytes) -> str:
    """What an enrolment token carries of the root key: 128 bits in hex."""
    return hashlib.sha256(raw).hexdigest()[:32]


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """DSSE's encoding: what is really signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """The envelope as JSON bytes."""
    signature = key.sign(pre_authentication_encoding(payload_type, payload))
    envelope = _Envelope(
        payload_type=payload_type,
        payload=base64.b64encode(payload).decode(),
        signatures=[
            _Signature(
                keyid=key_id(raw_public_key(key.public_key())), sig=base64.b64encode(signature).decode()
            )
        ],
    )
    return msgspec.json.encode(envelope)


def verify(envelope: bytes, payload_type: str, keys: Mapping[str, bytes]) -> tuple[bytes, str]:
    """The payload and the id of the key that signed it.

    `keys` maps key id to the 32 raw bytes of each trusted key. Raise SignatureError when no trusted key
    signed, ContractError when it is no envelope at all.
    """
    if len(envelope) > documents.MAX_ENVELOPE_BYTES:
        raise errors.ContractError(
            f"an envelope of {len(envelope)} bytes is over the limit of {documents.MAX_ENVELOPE_BYTES}",
            reason="too_large",
        )
    try:
        parsed = typed.read(_Envelope, envelope)
        payload = base64.b64decode(parsed.payload, validate=True)
        signatures = [(item.keyid, base64.b64decode(item.sig, validate=True)) for item in parsed.signatures]
    except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError) as error:
        raise errors.ContractError(f"not a signed document: {error}", reason="envelope") from error
    if parsed.payload_type != payload_type:
        raise errors.ContractError(
            f"a signed document of type {parsed.payload_type[:80]!r} instead of {payload_type!r}",
            reason="envelope",
        )
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise errors.ContractError(f"{len(signatures)} signatures instead of 1 to {MAX_SIGNATURES}")
    message = pre_authentication_encoding(payload_type, payload)
    for keyid, signature in signatures:
        raw = keys.get(keyid)
        if raw is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            continue
        return payload, keyid
    raise errors.SignatureError(
        "the document is not signed by a key that this device trusts; "
        "it was altered, comes from another server, or the trust document is out of date"
    )


def verify_trust(envelope: bytes, root_key: bytes) -> documents.Trust:
    """The trust document, when the root key signed it."""
    payload, _ = verify(envelope, TRUST, {key_id(root_key): root_key})
    return documents.decode(documents.Trust, payload)


def trusted_keys(trust: documents.Trust) -> dict[str, bytes]:
    """Key id to raw key; an entry whose name is not its key's own is left out."""
    keys = {}
    for name, text in trust.keys.items():
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        if len(raw) == 32 and key_id(raw) == name:
            keys[name] = raw
    return keys


def verify_desired(
    envelope: bytes, keys: Mapping[str, bytes], *, fleet: str, target: str
) -> tuple[documents.DesiredState, str]:
    """A desired document meant for this target of this fleet, and the id of the key that signed it.

    Order and expiry are the caller's to judge (`is_expired`, and the generation that it has kept).
    """
    payload, keyid = verify(envelope, DESIRED, keys)
    desired = documents.decode(documents.DesiredState, payload)
    if desired.fleet != fleet:
        raise errors.ContractError("the document belongs to another server", reason="wrong_fleet")
    if desired.target != target:
        raise errors.ContractError(
            f"the document is meant for {desired.target!r}, this device is {target!r}", reason="wrong_target"
        )
    if len(desired.deployments) > 1:
        raise errors.ContractError(
            f"the document holds {len(desired.deployments)} deployments; this agent serves one",
            reason="document",
        )
    for deployment in desired.deployments:
        if deployment.action is documents.Action.INSTALL:
            documents.check_install(deployment)
    return desired, keyid


def is_expired(desired: documents.DesiredState, now: datetime) -> bool:
    """Whether the document is too old to start on."""
    return now > desired.expires_at
