"""Every route of the API. What is not here does not exist."""

from __future__ import annotations

import re

from edgeflow_mlflow.api import deployments, devices, fleets, health, lineage, targets, tokens
from edgeflow_mlflow.api.routing import Route

ROUTES: tuple[Route, ...] = (
    *health.ROUTES,
    *devices.ROUTES,
    *tokens.ROUTES,
    *targets.ROUTES,
    *fleets.ROUTES,
    *deployments.ROUTES,
    *lineage.ROUTES,
)
_PATTERNS = [(re.compile(re.sub(r"<\w+>", "[^/]+", route.rule)), route) for route in ROUTES]


def allowed_methods(path: str) -> frozenset[str]:
    """The methods that a path under the prefix takes; empty when there is no such path."""
    found = {route.method for pattern, route in _PATTERNS if pattern.fullmatch(path)}
    return frozenset(found | {"HEAD"} if "GET" in found else found)
