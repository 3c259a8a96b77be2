"""Fetch from a device the requests that it has kept whole."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import msgspec

from edgeflow_agent import typed
from edgeflow_mlflow import errors
from edgeflow_mlflow.services import rpc
from edgeflow_mlflow.services.state import State

# What a device keeps of one request is bounded by its own setting; this guards the server against a liar.
MAX_BYTES = 64 * 2**20
T = TypeVar("T")


class Listed(msgspec.Struct, frozen=True):
    """One request that a device has kept; `size` in bytes of JSON, `at` by the device's clock."""

    id: str
    at: str
    size: int


class _Piece(msgspec.Struct, frozen=True):
    size: int
    piece: bytes


def listed(state: State, target_id: str, *, timeout_s: float) -> list[Listed]:
    """The newest requests that a device has kept, the newest first. ConflictError when it does not answer."""
    return _ask(state, target_id, "captures", None, list[Listed], timeout_s)


def fetch(state: State, target_id: str, capture_id: str, *, timeout_s: float) -> dict[str, Any]:
    """One of them, in as many messages as it takes. NotFoundError when it is not there (any more)."""
    deadline = time.monotonic() + timeout_s
    content = b""
    while True:
        question = {"id": capture_id, "offset": len(content)}
        left = deadline - time.monotonic()
        if left <= 0:
            raise errors.ConflictError(
                f"target {target_id!r} did not give the capture within {timeout_s:g} s"
            )
        part = _ask(state, target_id, "capture", question, _Piece, left)
        content += part.piece
        if len(content) >= part.size:
            break
        if not part.piece or part.size > MAX_BYTES:
            raise errors.ConflictError(f"target {target_id!r} gave an unreadable answer")
    return _decoded(target_id, content, dict[str, Any])


def _ask(state: State, target_id: str, method: str, question: Any, kind: type[T], timeout_s: float) -> T:
    status, answer = rpc.ask(state, target_id, method, msgspec.json.encode(question), timeout_s=timeout_s)
    if status == 404:
        said = _decoded(target_id, answer, dict[str, Any]).get("error")
        text = said.get("message") if isinstance(said, dict) else said
        raise errors.NotFoundError(f"{target_id}: {text or 'there is no such capture'}")
    if status != 200:
        raise errors.ConflictError(
            f"target {target_id!r} answered {status}: {answer[:500].decode(errors='replace')}"
        )
    return _decoded(target_id, answer, kind)


def _decoded(target_id: str, answer: bytes, kind: type[T]) -> T:
    try:
        return typed.read(kind, answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise errors.ConflictError(f"target {target_id!r} gave an unreadable answer") from error
