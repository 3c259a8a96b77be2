"""The text forms of secrets: enrolment tokens `eft1_…` and device credentials `efd1_…`.

A token carries the fingerprint of the server's root key, so a device knows whom to trust before it
has ever talked to anybody.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import NamedTuple

from edgeflow_agent import errors

_TOKEN = re.compile(r"eft1_([0-9a-f]{16})_([0-9a-f]{48})_([0-9a-f]{32})")
_CREDENTIAL = re.compile(r"efd1_([0-9a-f]{16})_([0-9a-f]{64})")
# What a log filter looks for.
SECRET = re.compile(r"(eft1|efd1)_[0-9a-f]{16}_[0-9a-f_]+")


class Token(NamedTuple):
    """An enrolment token: public id, secret, fingerprint of the root key."""

    id: str
    secret: str
    fingerprint: str


class Credential(NamedTuple):
    """A device credential: public id and secret."""

    id: str
    secret: str


def new_id() -> str:
    """A random public id."""
    return secrets.token_hex(8)


def format_token(token: Token) -> str:
    """The text that an operator hands to a device."""
    return f"eft1_{token.id}_{token.secret}_{token.fingerprint}"


def parse_token(text: str) -> Token:
    """Raise ContractError when it is not a token, without repeating the text."""
    match = _TOKEN.fullmatch(text.strip())
    if match is None:
        raise errors.ContractError(
            "this is not an enrolment token: it begins with eft1_ and comes from `edgeflow tokens create`",
            reason="token",
        )
    return Token(*match.groups())


def format_credential(credential: Credential) -> str:
    """The text that a device sends as bearer token and as MQTT password."""
    return f"efd1_{credential.id}_{credential.secret}"


def parse_credential(text: str) -> Credential | None:
    """None when the text is not a credential."""
    match = _CREDENTIAL.fullmatch(text)
    return None if match is None else Credential(*match.groups())


def hash_secret(secret: str) -> str:
    """What is kept at rest. The secrets are 192 and 256 random bits, so a slow hash would add nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()
