"""The server's keys: made once, kept in files that only it may read, never in the database.

The root key signs the trust document, the signing key signs desired documents, the secret derives
device credentials (so that an enrolment whose answer was lost can be answered again). The root key's
fingerprint is the fleet's id.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edgeflow_agent.wire import documents, signing
from edgeflow_mlflow import errors


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


def open_keyring(folder: Path) -> Keyring:
    """Read the keys, making them at the very first start. Several processes may do so at once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root = _private_key(folder / "root.key")
        signer = _private_key(folder / "signing.key")
        secret = _read_or_make(folder / "credentials.key", lambda: secrets.token_bytes(32))
    return Keyring(root, signer, secret)


def _private_key(path: Path) -> Ed25519PrivateKey:
    pem = _read_or_make(
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


def _read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise errors.SettingError(f"{path} can be read by others; run: chmod 600 {path}") from None
        return path.read_bytes()
    with os.fdopen(handle, "wb") as file:
        content = make()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return content
