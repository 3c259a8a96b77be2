"""The OpenAPI 3.1 document, made from the route table, so that it cannot say anything else than the code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from edgeflow_agent.version import VERSION
from edgeflow_mlflow.api import records
from edgeflow_mlflow.api.routing import PREFIX, Policy, Route

_REF = "#/components/schemas/{name}"
_SECURITY: dict[Policy, list[dict[str, list[str]]]] = {
    Policy.PUBLIC: [],
    Policy.DEVICE: [{"device": []}],
    Policy.READ: [{"mlflow": []}, {}],
    Policy.OPERATE: [{"mlflow": []}, {}],
    Policy.ADMIN: [{"mlflow": []}, {}],
}
_REASONS = {
    200: "Done",
    204: "Nothing yet",
    206: "A part of the file",
    304: "Unchanged",
    400: "The request is wrong; the message says how",
    401: "No or a wrong credential",
    403: "Not allowed",
    404: "No such thing",
    409: "It contradicts what is",
    413: "Over a limit",
    415: "Not JSON",
    416: "No such part of the file",
    422: "The model cannot go to a device",
    429: "Too much at once; Retry-After says when to come again",
}


def document(routes: Sequence[Route], static_prefix: str = "") -> dict[str, Any]:
    """The document as plain data. `static_prefix` is what stands before the API's own prefix."""
    types = [records.Error]
    for route in routes:
        types += [kind for kind in (route.body, route.answer) if kind not in (None, dict)]
    (_, *_), components = msgspec.json.schema_components(types, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"<(\w+)>", r"{\1}", route.rule)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Edgeflow",
            "version": VERSION,
            "description": "Which model runs on which device, and taking it back.",
        },
        "servers": [{"url": f"{static_prefix}{PREFIX}"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "device": {"type": "http", "scheme": "bearer", "description": "A device credential"},
                "mlflow": {"type": "http", "scheme": "basic", "description": "An MLflow user"},
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": re.sub(r"\W+", "_", f"{route.method}{route.rule}").strip("_").lower(),
        "tags": [route.rule.split("/")[1].partition(".")[0]],
        "security": _SECURITY[route.policy],
        "responses": {},
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"<(\w+)>", route.rule)
    ]
    if route.query is not None:
        parameters += _query_parameters(route.query)
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.method != "DELETE",
            "content": {"application/json": {"schema": _schema(route.body)}},
        }
    statuses = {400, 403, *route.errors} | ({413, 415} if route.method not in ("GET", "HEAD") else set())
    for status in (route.status, *route.other_statuses, *sorted(statuses)):
        operation["responses"][str(status)] = _response(route, status)
    return operation


def _response(route: Route, status: int) -> dict[str, Any]:
    response: dict[str, Any] = {"description": _REASONS[status]}
    if status in (route.status, 206) and status < 300:
        if route.answer is not None:
            response["content"] = {route.media_type: {"schema": _schema(route.answer)}}
        else:
            response["content"] = {route.media_type: {}}
    elif status >= 400 and status != 416:
        response["content"] = {"application/json": {"schema": _schema(records.Error)}}
    return response


def _schema(kind: Any) -> dict[str, Any]:
    return {"type": "object"} if kind is dict else {"$ref": _REF.format(name=kind.__name__)}


def _query_parameters(kind: Any) -> list[dict[str, Any]]:
    schema = msgspec.json.schema(kind)
    fields = schema["$defs"][kind.__name__]
    required = fields.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        for name, field in fields["properties"].items()
    ]
