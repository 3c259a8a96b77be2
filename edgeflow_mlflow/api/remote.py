"""Routes that ask a device something over MQTT."""

from __future__ import annotations

from typing import Any

import msgspec

from edgeflow_agent import typed
from edgeflow_mlflow import errors
from edgeflow_mlflow.api import records
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import captures, deploy, fleets, rpc


def predict(call: Call) -> records.RemoteAnswer:
    """Ask one of the deployment's targets for a prediction."""
    body: records.PredictRequest = call.body
    name = call.path["name"]
    with call.state.database.read() as session:
        targets = deploy.bound(session, deploy.get(session, name))
    if body.target:
        targets = [target for target in targets if target.id == body.target]
        if not targets:
            raise errors.NotFoundError(f"deployment {name!r} has no target {body.target!r}")
    reachable = [target for target in targets if target.connected]
    if not reachable:
        raise errors.ConflictError(
            f"no target of {name!r} is connected by MQTT, so none can be asked from here; "
            "`edgeflow targets list` shows when each was last seen"
        )
    # The one that spoke last is the one that most likely still answers.
    target = max(reachable, key=lambda item: item.last_seen_at or item.created_at)
    return _ask(call, target.id, "predict", body.inputs, body.timeout_s)


def diagnose(call: Call) -> records.RemoteAnswer:
    """Ask a target how it is."""
    body: records.DiagnoseRequest = call.body
    return _ask(call, _known(call).id, "diagnose", None, body.timeout_s)


def list_captures(call: Call) -> records.CaptureList:
    """What a target has kept of its requests."""
    name = _connected(call)
    found = captures.listed(call.state, name, timeout_s=_CAPTURES_S)
    return records.CaptureList(
        captures=[records.CaptureView(id=item.id, at=item.at, size=item.size) for item in found]
    )


def capture(call: Call) -> records.Capture:
    """One request that a target has kept."""
    name = _connected(call)
    found = captures.fetch(call.state, name, call.path["capture_id"], timeout_s=_CAPTURE_S)
    try:
        return typed.convert(records.Capture, found)
    except msgspec.ValidationError as error:
        raise errors.ConflictError(f"target {name!r} gave an unreadable answer: {error}") from error


def _known(call: Call) -> models.Target:
    name = call.path["target_id"]
    with call.state.database.read() as session:
        target = session.get(models.Target, name)
        if target is None:
            raise fleets.unknown_target(session, name)
    return target


def _connected(call: Call) -> str:
    target = _known(call)
    if not target.connected:
        raise errors.ConflictError(
            f"target {target.id!r} is not connected by MQTT, so it cannot be asked from here; "
            "`edgeflow targets show` says when it was last seen"
        )
    return target.id


def _ask(call: Call, target: str, method: str, question: Any, timeout_s: float) -> records.RemoteAnswer:
    status, answer = rpc.ask(call.state, target, method, msgspec.json.encode(question), timeout_s=timeout_s)
    try:
        decoded = msgspec.json.decode(answer)
    except msgspec.DecodeError as error:
        raise errors.ConflictError(f"target {target!r} gave an unreadable answer") from error
    return records.RemoteAnswer(target=target, status=status, answer=decoded)


_CAPTURES_S, _CAPTURE_S = 10.0, 60.0
_ERRORS = (401, 403, 404, 409, 413, 429)
_CAPTURE_ERRORS = (401, 403, 404, 409, 429)
ROUTES = (
    Route(
        method="POST",
        rule="/deployments/<name>/predict",
        policy=Policy.OPERATE,
        handler=predict,
        summary="Ask one of the deployment's targets",
        body=records.PredictRequest,
        answer=records.RemoteAnswer,
        errors=_ERRORS,
    ),
    Route(
        method="POST",
        rule="/targets/<target_id>/diagnose",
        policy=Policy.OPERATE,
        handler=diagnose,
        summary="Ask a target for its health, disk, load and reports",
        body=records.DiagnoseRequest,
        answer=records.RemoteAnswer,
        errors=_ERRORS,
    ),
    Route(
        method="GET",
        rule="/targets/<target_id>/captures",
        policy=Policy.OPERATE,
        handler=list_captures,
        summary="Requests that a target has kept whole",
        answer=records.CaptureList,
        errors=_CAPTURE_ERRORS,
    ),
    Route(
        method="GET",
        rule="/targets/<target_id>/captures/<capture_id>",
        policy=Policy.OPERATE,
        handler=capture,
        summary="One of them, with its answer",
        answer=records.Capture,
        errors=_CAPTURE_ERRORS,
    ),
)
