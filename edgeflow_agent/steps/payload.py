"""The bytes of a request: a raw body, or base64 where JSON has to carry them."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from edgeflow_agent import errors
from edgeflow_agent.steps import numbers


def content(value: Any, what: str) -> bytes:
    """`value` itself when it is bytes, else what its base64 says: a text, or `{"b64": text}`."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, dict) and value.keys() == {"b64"}:
        value = value["b64"]
    if not isinstance(value, str):
        raise errors.InputError(
            f"expected {what}, as the body itself or as base64 in JSON, got {numbers.kind(value)}"
        )
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise errors.InputError(f"expected {what} as base64: {error}") from error
