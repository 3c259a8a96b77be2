"""How each protocol says no: the path of a request decides."""

from __future__ import annotations

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.inference.messages import JSON, Response

# MLflow's words for a status; any other client mistake is its BAD_REQUEST.
_MLFLOW_CODES = {
    404: "ENDPOINT_NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL_ERROR",
    501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class RefusedError(errors.InputError):
    """A request that is refused with another status than 400."""

    def __init__(self, status: int, reason: str, message: str, *, headers: bytes = b"") -> None:
        super().__init__(message, reason=reason)
        self.status = status
        self.headers = headers


def refusal(path: bytes, status: int, code: str, message: str, headers: bytes = b"") -> Response:
    """An error in the shape that a client of this path expects."""
    body: dict[str, object]
    if path.startswith(b"/v2"):
        body = {"error": message}
    elif path == b"/invocations":
        body = {"error_code": _MLFLOW_CODES.get(status, "BAD_REQUEST"), "message": message}
    else:
        body = {"error": {"code": code, "message": message}}
    return Response(status, msgspec.json.encode(body), JSON, headers)


def refused(path: bytes, error: errors.InputError) -> Response:
    """The answer to a request that cannot be served as sent."""
    if isinstance(error, RefusedError):
        return refusal(path, error.status, error.reason, str(error), error.headers)
    return refusal(path, 400, error.reason, str(error))
