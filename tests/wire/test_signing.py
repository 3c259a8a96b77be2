"""Signed envelopes: one flipped bit, a wrong key, a wrong type or a wrong addressee is never accepted."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent import errors
from edgeflow_agent.wire import documents, signing

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
RAW = signing.raw_public_key(KEY.public_key())
KEYS = {signing.key_id(RAW): RAW}
TYPE = signing.DESIRED


def desired(**changes: Any) -> documents.DesiredState:
    state = documents.DesiredState(
        fleet="f",
        target="robot-01",
        generation=1,
        issued_at=NOW,
        expires_at=NOW + timedelta(hours=1),
        deployments=(
            documents.DesiredDeployment(
                id="d",
                execution="e",
                name="iris",
                action=documents.Action.INSTALL,
                model=documents.ModelRef(name="iris", version="1"),
                files=(documents.FileRef(path="model.onnx", sha256="0" * 64, size=3),),
                entry="model.onnx",
            ),
        ),
    )
    return msgspec.structs.replace(state, **changes)


@given(st.binary(max_size=2000), st.text(max_size=40))
def test_what_was_signed_is_what_comes_out(payload: bytes, kind: str) -> None:
    envelope = signing.sign(kind, payload, KEY)
    assert signing.verify(envelope, kind, KEYS) == (payload, signing.key_id(RAW))


def test_every_flipped_bit_is_refused_or_changes_nothing() -> None:
    payload = documents.encode(desired())
    envelope = signing.sign(TYPE, payload, KEY)
    harmless = 0
    for index in range(len(envelope) * 8):
        evil = bytearray(envelope)
        evil[index // 8] ^= 1 << index % 8
        try:
            accepted, _ = signing.verify(bytes(evil), TYPE, KEYS)
        except errors.ContractError:
            continue
        harmless += 1
        assert accepted == payload
    # Only a flip that leaves the meaning alone may pass; base64 has no such place here, and JSON few.
    assert harmless <= 4


@given(st.binary(max_size=400))
def test_garbage_is_a_contract_error(data: bytes) -> None:
    with pytest.raises(errors.ContractError):
        signing.verify(data, TYPE, KEYS)


def test_cut_anywhere_it_is_refused() -> None:
    envelope = signing.sign(TYPE, b"payload", KEY)
    for end in range(len(envelope)):
        with pytest.raises(errors.ContractError):
            signing.verify(envelope[:end], TYPE, KEYS)


def test_a_wrong_key_a_wrong_type_and_a_foreign_signature() -> None:
    envelope = signing.sign(TYPE, b"payload", KEY)
    other_raw = signing.raw_public_key(OTHER.public_key())
    with pytest.raises(errors.SignatureError):
        signing.verify(envelope, TYPE, {})
    with pytest.raises(errors.SignatureError):
        signing.verify(envelope, TYPE, {signing.key_id(other_raw): other_raw})
    with pytest.raises(errors.SignatureError):
        # Another key under the right name.
        signing.verify(envelope, TYPE, {signing.key_id(RAW): other_raw})
    with pytest.raises(errors.SignatureError):
        signing.verify(envelope, TYPE, {signing.key_id(RAW): b"short"})
    with pytest.raises(errors.ContractError, match="of type"):
        signing.verify(envelope, signing.TRUST, KEYS)
    # The type is signed as well: renaming it does not help.
    renamed = envelope.replace(TYPE.encode(), signing.TRUST.encode())
    with pytest.raises(errors.SignatureError):
        signing.verify(renamed, signing.TRUST, KEYS)


def test_the_payload_of_one_envelope_under_the_signature_of_another() -> None:
    one, two = (json.loads(signing.sign(TYPE, payload, KEY)) for payload in (b"one", b"two"))
    one["signatures"] = two["signatures"]
    with pytest.raises(errors.SignatureError):
        signing.verify(json.dumps(one).encode(), TYPE, KEYS)


@pytest.mark.parametrize("count", [0, 1, 8, 9, 1000])
def test_the_number_of_signatures_is_bounded(count: int) -> None:
    envelope = json.loads(signing.sign(TYPE, b"p", KEY))
    envelope["signatures"] = envelope["signatures"] * count
    data = json.dumps(envelope).encode()
    if 1 <= count <= 8:
        assert signing.verify(data, TYPE, KEYS)[0] == b"p"
    else:
        with pytest.raises(errors.ContractError):
            signing.verify(data, TYPE, KEYS)


def test_a_second_signature_counts_when_the_first_is_unknown() -> None:
    one, two = (json.loads(signing.sign(TYPE, b"p", key)) for key in (OTHER, KEY))
    one["signatures"] += two["signatures"]
    assert signing.verify(json.dumps(one).encode(), TYPE, KEYS) == (b"p", signing.key_id(RAW))


@pytest.mark.parametrize("over", [0, 1, 1000 * documents.MAX_ENVELOPE_BYTES])
def test_the_size_is_judged_before_anything_is_read(over: int) -> None:
    empty = len(signing.sign(TYPE, b"", KEY))
    room = documents.MAX_ENVELOPE_BYTES - empty
    payload = b"x" * (room // 4 * 3)
    envelope = signing.sign(TYPE, payload, KEY)
    envelope += b" " * (documents.MAX_ENVELOPE_BYTES - len(envelope) + over)
    assert len(envelope) == documents.MAX_ENVELOPE_BYTES + over
    if over:
        with pytest.raises(errors.ContractError, match="over the limit") as caught:
            signing.verify(envelope, TYPE, KEYS)
        assert caught.value.reason == "too_large"
    else:
        assert signing.verify(envelope, TYPE, KEYS)[0] == payload


@dataclass(frozen=True)
class Case:
    changes: dict[str, Any]
    reason: str


@pytest.mark.parametrize(
    "case",
    [
        Case({"fleet": "other"}, "wrong_fleet"),
        Case({"target": "robot-02"}, "wrong_target"),
        Case({"deployments": desired().deployments * 2}, "document"),
        Case({"deployments": (msgspec.structs.replace(desired().deployments[0], files=()),)}, "document"),
        Case({"deployments": (msgspec.structs.replace(desired().deployments[0], entry="x"),)}, "document"),
        Case({"deployments": (msgspec.structs.replace(desired().deployments[0], model=None),)}, "document"),
    ],
    ids=lambda case: case.reason,
)
def test_a_rightly_signed_document_that_is_not_for_this_device(case: Case) -> None:
    envelope = signing.sign(TYPE, documents.encode(desired(**case.changes)), KEY)
    with pytest.raises(errors.ContractError) as caught:
        signing.verify_desired(envelope, KEYS, fleet="f", target="robot-01")
    assert caught.value.reason == case.reason


def test_a_desired_document_and_its_expiry() -> None:
    envelope = signing.sign(TYPE, documents.encode(desired()), KEY)
    found, keyid = signing.verify_desired(envelope, KEYS, fleet="f", target="robot-01")
    assert (found, keyid) == (desired(), signing.key_id(RAW))
    assert not signing.is_expired(found, NOW + timedelta(hours=1))
    assert signing.is_expired(found, NOW + timedelta(hours=1, seconds=1))


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "/etc/passwd",
        "a/b",
        ".hidden",
        "",
        "a\\b",
        "a\0b",
        "x" * 129,
        "ä.onnx",
        "model.onnx\n",
        "C:x",
        ".",
    ],
)
def test_a_file_name_that_leaves_the_folder_is_refused_though_signed(path: str) -> None:
    evil = (documents.FileRef(path=path, sha256="0" * 64, size=1), *desired().deployments[0].files)
    state = desired(deployments=(msgspec.structs.replace(desired().deployments[0], files=evil),))
    envelope = signing.sign(TYPE, documents.encode(state), KEY)
    with pytest.raises(errors.ContractError):
        signing.verify_desired(envelope, KEYS, fleet="f", target="robot-01")


def test_trust_holds_only_keys_under_their_own_names() -> None:
    other = signing.raw_public_key(OTHER.public_key())
    trust = documents.Trust(
        fleet="f",
        version=1,
        keys={
            signing.key_id(RAW): base64.b64encode(RAW).decode(),
            signing.key_id(other): base64.b64encode(RAW).decode(),
            "short": base64.b64encode(b"short").decode(),
            "garbage": "§",
        },
    )
    assert signing.trusted_keys(trust) == KEYS
    envelope = signing.sign(signing.TRUST, documents.encode(trust), KEY)
    assert signing.verify_trust(envelope, RAW) == trust
    with pytest.raises(errors.SignatureError):
        signing.verify_trust(envelope, other)


def test_names_of_a_key() -> None:
    assert len(signing.key_id(RAW)) == 16
    assert len(signing.fingerprint(RAW)) == 32
    assert signing.fingerprint(RAW).startswith(signing.key_id(RAW))
    assert signing.pre_authentication_encoding("a", b"bc") == b"DSSEv1 1 a 2 bc"
