"""The device API of the server over HTTP: one method per route, one attempt per call.

Redirects are never followed: the credential would go to whoever they name. Trying again is the
caller's business.
"""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from edgeflow_agent import errors, typed, version
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.telemetry import BaselineUpload, TelemetryRequest, TelemetryResponse

logger = logging.getLogger(__name__)

GENERATION_HEADER = "X-Edgeflow-Generation"
_USER_AGENT = f"edgeflow-agent/{version.VERSION}"
_MAX_ANSWER = documents.MAX_MESSAGE_BYTES


class Answer(NamedTuple):
    """What the server said: `etag` is empty when there was none."""

    status: int
    body: bytes
    etag: str


class _Rotation(msgspec.Struct, frozen=True):
    credential: str


class Server:
    """Where the server is and how to reach it."""

    def __init__(self, url: str, *, ca_file: str = "", timeout_s: float = 10.0) -> None:
        parts = urllib.parse.urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise errors.ConfigError(f"the server's address {url!r} has no valid port") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise errors.ConfigError(
                f"the server's address must look like https://edgeflow.example:5000, not {url!r}"
            )
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._host = parts.hostname
        self._port = port
        self._prefix = parts.path.rstrip("/")
        self._context = ssl_context(ca_file) if parts.scheme == "https" else None

    def connect(self, timeout_s: float) -> http.client.HTTPConnection:
        """An unopened connection."""
        if self._context is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout_s, context=self._context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)

    def target(self, path: str) -> str:
        """The request target of a route."""
        return f"{self._prefix}{path}"


class DeviceApi:
    """The routes that a device calls, with its credential."""

    def __init__(self, server: Server, credential: str = "") -> None:
        self.server = server
        self.credential = credential

    def headers(self) -> dict[str, str]:
        """What goes with every request of this device."""
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
        if self.credential:
            headers["Authorization"] = f"Bearer {self.credential}"
        return headers

    def enrol(self, request: documents.EnrolRequest) -> documents.EnrolResponse:
        """Turn an enrolment token into an identity."""
        answer = self._call("POST", "/api/v1/enroll", documents.encode(request))
        return documents.decode(documents.EnrolResponse, answer.body)

    def session(self) -> documents.Session:
        """Where and how often to talk."""
        answer = self._call("GET", "/api/v1/device/session")
        return documents.decode(documents.Session, answer.body)

    def trust(self) -> bytes:
        """The signed trust document."""
        return self._call("GET", "/api/v1/device/trust").body

    def desired(self, *, etag: str = "", generation: int = 0) -> Answer:
        """The signed desired document (200), nothing yet (204) or nothing new (304)."""
        headers = {GENERATION_HEADER: str(generation)}
        if etag:
            headers["If-None-Match"] = etag
        return self._call("GET", "/api/v1/device/desired", headers=headers)

    def reports(self, request: documents.ReportsRequest) -> documents.ReportsResponse:
        """Hand over reports and presence; the answer names what is stored."""
        answer = self._call("POST", "/api/v1/device/reports", documents.encode(request))
        return documents.decode(documents.ReportsResponse, answer.body)

    def telemetry(self, request: TelemetryRequest) -> TelemetryResponse:
        """Hand over windows; the answer names what is stored and what never will be."""
        answer = self._call("POST", "/api/v1/device/telemetry", msgspec.json.encode(request))
        try:
            return typed.read(TelemetryResponse, answer.body)
        except msgspec.MsgspecError as error:
            raise errors.TransferError(f"the server's answer on telemetry cannot be read: {error}") from error

    def baseline(self, upload: BaselineUpload) -> None:
        """Hand over a baseline that this device has made itself."""
        self._call("POST", "/api/v1/device/baselines", msgspec.json.encode(upload))

    def rotate(self) -> str:
        """A new credential; the old one dies at the first use of the new one."""
        answer = self._call("POST", "/api/v1/device/rotate", b"{}")
        try:
            return typed.read(_Rotation, answer.body).credential
        except msgspec.MsgspecError as error:
            raise errors.TransferError(f"the server's answer is not a credential: {error}") from error

    def _call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        sent = self.headers() | dict(headers or {})
        if body is not None:
            sent["Content-Type"] = "application/json"
        connection = self.server.connect(self.server.timeout_s)
        try:
            connection.request(method, self.server.target(path), body=body, headers=sent)
            response = connection.getresponse()
            data = response.read(_MAX_ANSWER + 1)
            status, etag = response.status, response.getheader("ETag") or ""
            location = response.getheader("Location") or ""
        except (OSError, http.client.HTTPException) as error:
            raise errors.TransferError(
                f"cannot reach the server at {self.server.url}: {describe(error)}", reason="unreachable"
            ) from error
        finally:
            connection.close()
        if len(data) > _MAX_ANSWER:
            raise errors.TransferError(f"the server's answer to {path} is over {_MAX_ANSWER} bytes")
        if status in (200, 204, 304):
            return Answer(status, data, etag)
        raise refusal(status, data, path, location)


def refusal(status: int, body: bytes, path: str, location: str = "") -> errors.TransferError:
    """What an answer other than success means for the caller."""
    if 300 <= status < 400:
        return errors.TransferError(
            f"the server redirects {path} to {location[:200]!r}; set server.url to its real address",
            reason="redirect",
            status=status,
        )
    message = _message(body)
    if status == 401:
        text = message or "the credential was revoked or is unknown"
        return errors.TransferError(
            f"the server refuses this device: {text}; enrol again with `edgeflow-agent enroll --force` and a "
            "token from `edgeflow tokens create --target NAME`",
            reason="unauthorized",
            status=status,
        )
    # 408, 425 and 429 ask to come again; any other 4xx will say the same next time.
    retry = status >= 500 or status in (408, 425, 429)
    text = message or f"it answered {status} to {path}"
    return errors.TransferError(text, reason="refused", retry=retry, status=status)


def _message(body: bytes) -> str:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    message = value.get("message") if isinstance(value, dict) else None
    return message[:500] if isinstance(message, str) else ""


def ssl_context(ca_file: str) -> ssl.SSLContext:
    """Certificates as the system trusts them, or those of `ca_file` alone."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise errors.ConfigError(
            f"cannot use the certificates of server.ca_file {ca_file!r}: {error}"
        ) from error


def describe(error: BaseException) -> str:
    """A short text for an error of the network."""
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
