"""Routes that ask a device something over MQTT."""

from __future__ import annotations

from typing import Any

import msgspec

from edgeflow_mlflow import errors
from edgeflow_mlflow.api import records
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import deploy, fleets, rpc


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
    name = call.path["target_id"]
    with call.state.database.read() as session:
        if session.get(models.Target, name) is None:
            raise fleets.unknown_target(session, name)
    return _ask(call, name, "diagnose", None, body.timeout_s)


def _ask(call: Call, target: str, method: str, question: Any, timeout_s: float) -> records.RemoteAnswer:
    status, answer = rpc.ask(call.state, target, method, msgspec.json.encode(question), timeout_s=timeout_s)
    try:
        decoded = msgspec.json.decode(answer)
    except msgspec.DecodeError as error:
        raise errors.ConflictError(f"target {target!r} gave an unreadable answer") from error
    return records.RemoteAnswer(target=target, status=status, answer=decoded)


_ERRORS = (401, 403, 404, 409, 413, 429)
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
)
