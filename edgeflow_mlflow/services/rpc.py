"""Ask a device something over MQTT: a web worker writes the question and waits, the hub carries it."""

from __future__ import annotations

import threading
import time
import uuid
from datetime import timedelta

from sqlalchemy import delete, select, update

from edgeflow_agent.wire import documents
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services.state import State

MAX_BODY = 128 * 1024
# Each asker holds a thread of its web worker; other requests need some too.
_MAX_WAITING = 16
_waiting = threading.BoundedSemaphore(_MAX_WAITING)
_LOOK_EVERY_S = 0.02


def ask(state: State, target_id: str, method: str, body: bytes, *, timeout_s: float) -> tuple[int, bytes]:
    """The device's status and body. ConflictError when it is not connected or does not answer in time,
    TooManyError when many wait already."""
    if len(body) > MAX_BODY:
        raise errors.TooLargeError(
            f"a remote call carries at most {MAX_BODY} bytes, this one {len(body)}; "
            "send it to the device's own /infer instead"
        )
    if not _waiting.acquire(blocking=False):
        raise errors.TooManyError(
            f"{_MAX_WAITING} remote calls are waiting for their devices already; try again soon"
        )
    try:
        return _ask(state, target_id, method, body, timeout_s)
    finally:
        _waiting.release()


def _ask(state: State, target_id: str, method: str, body: bytes, timeout_s: float) -> tuple[int, bytes]:
    now = state.now()
    call = models.RpcCall(
        id=uuid.uuid4().hex,
        target_id=target_id,
        method=method,
        body=body,
        created_at=now,
        expires_at=now + timedelta(seconds=timeout_s),
    )
    with state.database.write() as session:
        target = session.get(models.Target, target_id)
        if target is None:
            raise errors.NotFoundError(f"no target {target_id!r}")
        session.add(call)
    try:
        return _await(state, target_id, call.id, timeout_s)
    finally:
        with state.database.write() as session:
            session.execute(delete(models.RpcCall).where(models.RpcCall.id == call.id))


def _await(state: State, target_id: str, call_id: str, timeout_s: float) -> tuple[int, bytes]:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with state.database.read() as session:
            row = session.get(models.RpcCall, call_id)
        if row is None:
            break
        if row.status is not None:
            return row.status, row.answer or b"null"
        time.sleep(_LOOK_EVERY_S)
    raise errors.ConflictError(
        f"target {target_id!r} did not answer within {timeout_s:g} s: remote calls need its MQTT "
        "connection; `edgeflow targets show` says when it was last seen"
    )


def unsent(state: State) -> list[models.RpcCall]:
    """Questions that wait for the hub."""
    with state.database.read() as session:
        return list(
            session.scalars(
                select(models.RpcCall)
                .where(models.RpcCall.sent_at.is_(None), models.RpcCall.expires_at > state.now())
                .limit(100)
            )
        )


def mark_sent(state: State, call_id: str) -> None:
    """The hub has handed the question to the broker."""
    with state.database.write() as session:
        session.execute(
            update(models.RpcCall).where(models.RpcCall.id == call_id).values(sent_at=state.now())
        )


def answered(state: State, target_id: str, response: documents.RpcResponse) -> None:
    """Keep an answer, if its question is still open and was put to this very target."""
    with state.database.write() as session:
        session.execute(
            update(models.RpcCall)
            .where(
                models.RpcCall.id == response.id,
                models.RpcCall.target_id == target_id,
                models.RpcCall.status.is_(None),
            )
            .values(status=response.status, answer=bytes(response.body))
        )


def forget_expired(state: State) -> None:
    """Drop questions whose asker is gone."""
    with state.database.write() as session:
        session.execute(
            delete(models.RpcCall).where(models.RpcCall.expires_at < state.now() - timedelta(minutes=1))
        )
