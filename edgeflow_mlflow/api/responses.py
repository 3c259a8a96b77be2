"""From errors to HTTP, in MLflow's own shape. One table; nothing permanent is ever a 5xx."""

from __future__ import annotations

import msgspec
from flask import Response
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

from edgeflow_agent import errors as agent_errors
from edgeflow_mlflow import errors

# Error class -> HTTP status and the word that MLflow's clients know.
TABLE: dict[type[Exception], tuple[int, str]] = {
    errors.InvalidError: (400, "INVALID_PARAMETER_VALUE"),
    agent_errors.ContractError: (400, "INVALID_PARAMETER_VALUE"),
    errors.UnauthenticatedError: (401, "UNAUTHENTICATED"),
    errors.ForbiddenError: (403, "PERMISSION_DENIED"),
    errors.NotFoundError: (404, "RESOURCE_DOES_NOT_EXIST"),
    errors.ConflictError: (409, "RESOURCE_CONFLICT"),
    errors.TooLargeError: (413, "INVALID_PARAMETER_VALUE"),
    errors.MediaTypeError: (415, "INVALID_PARAMETER_VALUE"),
    errors.UnprocessableError: (422, "INVALID_PARAMETER_VALUE"),
    errors.TooManyError: (429, "REQUEST_LIMIT_EXCEEDED"),
}
_WORDS = dict(TABLE.values()) | {405: "INVALID_PARAMETER_VALUE"}
JSON = "application/json"


def body(code: str, message: str) -> bytes:
    """The error as MLflow writes it."""
    return msgspec.json.encode({"error_code": code, "message": message})


def of_error(error: Exception) -> Response:
    """The answer to an error of ours."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            status, code = TABLE[kind]
            break
    else:
        status, code = 400, "BAD_REQUEST"
    response = Response(body(code, str(error)), status=status, content_type=JSON)
    if isinstance(error, errors.UnauthenticatedError):
        response.headers["WWW-Authenticate"] = 'Bearer realm="edgeflow"'
    if isinstance(error, errors.TooManyError):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def of_conflict(_error: IntegrityError) -> Response:
    """The answer when the database refused because another request was quicker."""
    message = "something else changed this at the same moment; look at it again and retry"
    return Response(body("RESOURCE_CONFLICT", message), status=409, content_type=JSON)


def of_unstorable(_error: DataError) -> Response:
    """The answer when the database cannot hold a value, such as a text with a NUL character."""
    message = "a value cannot be stored: a text is too long, or holds a character that no text may hold"
    return Response(body("INVALID_PARAMETER_VALUE", message), status=400, content_type=JSON)


def of_busy(_error: OperationalError | PoolTimeoutError) -> Response:
    """The answer when the database cannot be written or reached now: trying again may help."""
    response = Response(
        body("TEMPORARILY_UNAVAILABLE", "the database is busy or away"), status=503, content_type=JSON
    )
    response.headers["Retry-After"] = "2"
    return response


def of_http(error: HTTPException) -> Response:
    """The answer to an error that Flask itself found."""
    status = error.code or 500
    code = _WORDS.get(status, "INTERNAL_ERROR" if status >= 500 else "BAD_REQUEST")
    return Response(body(code, error.description or error.name), status=status, content_type=JSON)
