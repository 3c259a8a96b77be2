"""MQTT topics: `edgeflow/targets/{target}/{kind}`, and who may say what."""

from __future__ import annotations

import enum
import re

from edgeflow_agent import errors

TARGET_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_ROOT = "edgeflow/targets/"


class Kind(enum.StrEnum):
    """The last part of a topic: what a message is."""

    DEPLOY = "deploy"
    ACK = "deploy/ack"
    STATUS = "deploy/status"
    TELEMETRY = "telemetry"
    PRESENCE = "presence"
    STORED = "stored"
    RPC_REQUEST = "rpc/request"
    RPC_RESPONSE = "rpc/response"


TO_DEVICE = frozenset({Kind.DEPLOY, Kind.STORED, Kind.RPC_REQUEST})
FROM_DEVICE = frozenset({Kind.ACK, Kind.STATUS, Kind.TELEMETRY, Kind.PRESENCE, Kind.RPC_RESPONSE})


def is_target_id(text: str) -> bool:
    """Whether `text` may name a target: it can then never hold an MQTT wildcard or a path part."""
    return TARGET_ID.fullmatch(text) is not None


def check_target_id(text: str) -> str:
    """Return `text`, or raise ContractError with what a target id must look like."""
    if not is_target_id(text):
        raise errors.ContractError(
            f"{text!r} cannot name a target: use 1 to 63 of a-z, 0-9, '.', '_', '-', "
            "beginning with a letter or a digit (for example robot-07)",
            reason="target_id",
        )
    return text


def topic(target: str, kind: Kind) -> str:
    """The topic of one kind of message for one target."""
    return f"{_ROOT}{check_target_id(target)}/{kind.value}"


def parse(text: str) -> tuple[str, Kind]:
    """Split a topic into target id and kind; raise ContractError on anything else."""
    if text.startswith(_ROOT):
        target, _, kind = text[len(_ROOT) :].partition("/")
        if is_target_id(target):
            try:
                return target, Kind(kind)
            except ValueError:
                pass
    raise errors.ContractError(f"not an Edgeflow topic: {text[:120]!r}", reason="topic")
