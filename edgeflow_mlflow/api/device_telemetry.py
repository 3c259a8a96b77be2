"""Routes on which devices send what they have seen."""

from __future__ import annotations

from edgeflow_agent.wire.telemetry import BaselineUpload, TelemetryRequest, TelemetryResponse
from edgeflow_mlflow import errors
from edgeflow_mlflow.api import records
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.services import baselines, telemetry


def windows(call: Call) -> TelemetryResponse:
    """Take windows; answers with what is committed, and with what will never be taken."""
    request: TelemetryRequest = call.body
    if len(request.windows) > telemetry.MAX_WINDOWS:
        raise errors.InvalidError(f"at most {telemetry.MAX_WINDOWS} windows at once")
    return telemetry.take(call.state, call.actor.target, request.windows)


def baseline(call: Call) -> records.BaselineKept:
    """Keep a baseline that the device has learned."""
    body: BaselineUpload = call.body
    sha256 = baselines.learn(call.state, call.actor.target, body.digest, body.baseline)
    return records.BaselineKept(sha256=sha256)


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="POST",
        rule="/device/telemetry",
        policy=Policy.DEVICE,
        handler=windows,
        summary="Windows of telemetry; answers with what is stored and what is refused",
        body=TelemetryRequest,
        answer=TelemetryResponse,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="POST",
        rule="/device/baselines",
        policy=Policy.DEVICE,
        handler=baseline,
        summary="A baseline that the device has learned",
        body=BaselineUpload,
        answer=records.BaselineKept,
        errors=(*_REFUSED, 404),
    ),
)
