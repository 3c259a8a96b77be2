"""Every route of the API. What is not here does not exist."""

from __future__ import annotations

import re
from typing import Any

from edgeflow_mlflow.api import (
    alert_rules,
    alerts,
    deployments,
    device_telemetry,
    devices,
    drift,
    fleets,
    health,
    lineage,
    metrics,
    openapi,
    overview,
    recalls,
    receivers,
    remote,
    rollouts,
    targets,
    telemetry,
    tokens,
    tracing,
)
from edgeflow_mlflow.api.routing import PREFIX, Call, Policy, Route


def describe(call: Call) -> dict[str, Any]:
    """The document that describes this API."""
    return openapi.document(ROUTES, call.prefix.removesuffix(PREFIX))


ROUTES: tuple[Route, ...] = (
    *health.ROUTES,
    Route(
        method="GET",
        rule="/openapi.json",
        policy=Policy.PUBLIC,
        handler=describe,
        summary="This document",
        answer=dict,
    ),
    *devices.ROUTES,
    *device_telemetry.ROUTES,
    *tokens.ROUTES,
    *targets.ROUTES,
    *fleets.ROUTES,
    *deployments.ROUTES,
    *rollouts.ROUTES,
    *remote.ROUTES,
    *lineage.ROUTES,
    *tracing.ROUTES,
    *recalls.ROUTES,
    *telemetry.ROUTES,
    *drift.ROUTES,
    *alerts.ROUTES,
    *alert_rules.ROUTES,
    *receivers.ROUTES,
    *overview.ROUTES,
    *metrics.ROUTES,
)
_PATTERNS = [(re.compile(re.sub(r"<\w+>", "[^/]+", route.rule)), route) for route in ROUTES]


def allowed_methods(path: str) -> frozenset[str]:
    """The methods that a path under the prefix takes; empty when there is no such path."""
    found = {route.method for pattern, route in _PATTERNS if pattern.fullmatch(path)}
    return frozenset(found | {"HEAD"} if "GET" in found else found)
