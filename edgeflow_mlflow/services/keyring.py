"""The server's keys: made once, kept in files that only it may read, never in the database.

The root key signs the trust document, the signing key signs desired documents, the secret derives
device credentials (so that an enrolment whose answer was lost can be answered again) and the key that
seals what must be in the database but is nobody's to read. The root key's fingerprint is the fleet's id.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edgeflow_agent.wire import documents, signing
from edgeflow_mlflow import errors
from edgeflow_mlflow.services import leftovers

_SECRET_BYTES = 32
_NONCE_BYTES = 12


class Keyring:
    """Signs for one fleet. Open it with `open_keyring`."""

    def __init__(self, root: Ed25519PrivateKey, signer: Ed25519PrivateKey, secret: bytes) -> None:
        self._signer = signer
        self._secret = secret
        self.root_key = signing.raw_public_key(root.public_key())
        self.fleet = signing.fingerprint(self.root_key)
        public = signing.raw_public_key(signer.public_key())
        trust = documents.Trust(
            fleet=self.fleet,
            version=1,
            keys={signing.key_id(public): base64.b64encode(public).decode()},
        )
        self.trust_version = trust.version
        self.trust = signing.sign(signing.TRUST, documents.encode(trust), root)

    def sign_desired(self, desired: documents.DesiredState) -> bytes:
        """The envelope that a device accepts."""
        return signing.sign(signing.DESIRED, documents.encode(desired), self._signer)

    def derive_secret(self, credential_id: str) -> str:
        """The secret part of a credential, in hex: the same each time it is asked for."""
        return hmac.new(self._secret, credential_id.encode(), hashlib.sha256).hexdigest()

    def seal(self, content: bytes, place: str) -> bytes:
        """The content, to be read by nobody without these keys; `place` says where it belongs."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._sealer().encrypt(nonce, content, place.encode())

    def unseal(self, sealed: bytes, place: str) -> bytes | None:
        """What was sealed for that place; None when it was sealed for another, or with other keys."""
        try:
            return self._sealer().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError):
            return None

    def _sealer(self) -> AESGCM:
        return AESGCM(hmac.new(self._secret, b"edgeflow.seal.v1", hashlib.sha256).digest())


def open_keyring(folder: Path) -> Keyring:
    """Read the keys, making them at the very first start. Several processes may do so at once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root = _private_key(folder / "root.key")
        signer = _private_key(folder / "signing.key")
        secret = read_or_make(folder / "credentials.key", lambda: secrets.token_bytes(_SECRET_BYTES))
    if len(secret) != _SECRET_BYTES:
        raise errors.SettingError(
            f"{folder / 'credentials.key'} holds {len(secret)} bytes instead of {_SECRET_BYTES}: restore it "
            "from a backup, or remove it and start again (a new one is made; enrolled devices stay enrolled)"
        )
    return Keyring(root, signer, secret)


def _private_key(path: Path) -> Ed25519PrivateKey:
    pem = read_or_make(
        path,
        lambda: Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise errors.SettingError(
            f"{path} holds no readable private key: restore it from a backup"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise errors.SettingError(f"{path} holds a key that is not Ed25519: restore it from a backup")
    return key


def read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    """The secret in a file that only its owner may read, made when there is none. It appears whole or not
    at all, and of several processes that make it at once all get the same."""
    if not path.exists():
        _write_new(path, make())
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise errors.SettingError(f"{path} can be read by others; run: chmod 600 {path}")
    return path.read_bytes()


def _write_new(path: Path, content: bytes) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=leftovers.INCOMING)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process was quicker: its content counts
                os.link(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise errors.SettingError(
            f"cannot write the key {path}: {error.strerror}; make room there, or set [server] data_dir to a "
            "folder on a disk of this machine"
        ) from error


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
