"""Everything the server refuses. One table (`api/responses.py`) turns these into HTTP; none is a 5xx,
because MLflow's clients retry those for minutes.

ServerError
├── InvalidError       the request is wrong (400)
├── UnauthenticatedError no or a wrong credential (401)
├── ForbiddenError     a right credential without the right (403)
├── NotFoundError      no such thing (404)
├── ConflictError      it contradicts what is (409)
│   └── ChangedError   it was changed since the caller looked
├── TooLargeError      over a limit (413)
├── MediaTypeError     not JSON (415)
├── UnprocessableError the model cannot go to a device (422)
├── TooManyError       too often (429)
└── SettingError       a setting of the server is missing or wrong (it does not start)
"""

from __future__ import annotations


class ServerError(Exception):
    """Base of all errors of the server side; the text says what to do next."""


class InvalidError(ServerError):
    """The request is wrong."""


class UnauthenticatedError(ServerError):
    """No credential, or a wrong one."""


class ForbiddenError(ServerError):
    """A right credential without the right to do this."""


class NotFoundError(ServerError):
    """No such thing."""


class ConflictError(ServerError):
    """It contradicts what is."""


class ChangedError(ConflictError):
    """It was changed since the caller looked."""


class TooLargeError(ServerError):
    """Over a limit."""


class MediaTypeError(ServerError):
    """The body is not JSON."""


class UnprocessableError(ServerError):
    """The model cannot go to a device."""


class TooManyError(ServerError):
    """Too often; `retry_after_s` says when to come again."""

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SettingError(ServerError):
    """A setting of the server is missing or wrong."""
