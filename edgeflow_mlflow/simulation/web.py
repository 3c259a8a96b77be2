"""The device routes of the server, called from a few threads for all devices. Connections are kept."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import re
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from edgeflow_agent import errors
from edgeflow_agent.version import VERSION
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import FileRef
from edgeflow_mlflow.simulation.outputs import Poll, Polled

logger = logging.getLogger(__name__)

_MAX_ANSWER = documents.MAX_MESSAGE_BYTES
_CHUNK = 256 * 1024
_TRIES = 3
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class RefusedError(Exception):
    """The server did not do it; `status` 0: it was not reached."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Answer(NamedTuple):
    status: int
    body: bytes
    etag: str


class Web:
    """Thread-safe: each thread has a connection of its own."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise errors.ConfigError(f"the server's address must look like http://host:5000, not {url!r}")
        self._host, self._port = parts.hostname, parts.port
        self._prefix = parts.path.rstrip("/")
        self._context = ssl.create_default_context() if parts.scheme == "https" else None
        self._timeout_s = timeout_s
        self._local = threading.local()

    def enrol(self, request: documents.EnrolRequest) -> documents.EnrolResponse:
        """Turn a token into an identity. The same request may be sent again."""
        for attempt in range(1, _TRIES + 1):
            try:
                answer = self._call("", "POST", "/enroll", body=documents.encode(request))
                return documents.decode(documents.EnrolResponse, answer.body)
            except RefusedError as error:
                if 0 < error.status < 500 or attempt == _TRIES:
                    raise
        raise AssertionError("unreachable")

    def poll(self, credential: str, ask: Poll) -> Polled:
        """Session and trust where they are wanted, and the desired document."""
        session = trust = None
        if ask.session:
            body = self._call(credential, "GET", "/device/session").body
            session = documents.decode(documents.Session, body)
        if ask.trust:
            trust = self._call(credential, "GET", "/device/trust").body
        headers = {"X-Edgeflow-Generation": str(ask.generation)}
        if ask.etag:
            headers["If-None-Match"] = ask.etag
        answer = self._call(credential, "GET", "/device/desired", headers=headers)
        desired = answer.body if answer.status == 200 else b""
        return Polled(session=session, trust=trust or b"", desired=desired, etag=answer.etag)

    def post(self, credential: str, request: documents.ReportsRequest) -> documents.ReportsResponse:
        """Hand reports and presence over."""
        answer = self._call(credential, "POST", "/device/reports", body=documents.encode(request))
        return documents.decode(documents.ReportsResponse, answer.body)

    def _call(
        self,
        credential: str,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _Answer:
        words = {**_headers(credential), **(headers or {})}
        if body is not None:
            words["Content-Type"] = "application/json"
        kept: http.client.HTTPConnection | None = getattr(self._local, "kept", None)
        for connection in filter(None, (kept, self._connection())):
            self._local.kept = None
            try:
                connection.request(method, f"{self._prefix}/api/v1{path}", body=body, headers=words)
                response = connection.getresponse()
                data = response.read(_MAX_ANSWER + 1)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if connection is kept and not isinstance(error, TimeoutError):
                    continue  # the server has closed it meanwhile
                raise RefusedError(0, f"cannot reach the server: {error}") from error
            if len(data) > _MAX_ANSWER:
                connection.close()
                raise RefusedError(response.status, f"the answer to {path} is too long")
            if not response.will_close:
                self._local.kept = connection
            if response.status in (200, 204, 304):
                return _Answer(response.status, data, response.getheader("ETag") or "")
            raise RefusedError(response.status, _message(data) or f"{response.status} to {path}")
        raise AssertionError("unreachable")

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    # Files.

    def fetch(self, credential: str, item: FileRef, should_stop: Callable[[], bool]) -> bool:
        """Whether every byte of a file came and the hash is right; False: it was told to stop. Nothing is
        kept. What breaks off goes on by Range; raise RefusedError where that does not help."""
        digest, have, failures = hashlib.sha256(), 0, 0
        while have < item.size and failures < _TRIES:
            before = have
            try:
                for data in self._blob(credential, item, have):
                    digest.update(data)
                    have += len(data)
                    if should_stop():
                        return False
            except (OSError, http.client.HTTPException) as error:
                logger.debug("fetching %s broke off at %d: %s", item.path, have, error)
            failures = 0 if have > before else failures + 1
        if have < item.size:
            raise RefusedError(0, f"fetching {item.path} broke off at {have} of {item.size} bytes")
        if have > item.size or digest.hexdigest() != item.sha256:
            raise errors.ContractError(
                f"the server sent other bytes for {item.path} than were signed for", reason="digest"
            )
        return True

    def _blob(self, credential: str, item: FileRef, have: int) -> Iterator[bytes]:
        headers = _headers(credential)
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{item.sha256}"'}
        connection = self._connection()
        try:
            connection.request("GET", f"{self._prefix}/api/v1/device/blobs/{item.sha256}", headers=headers)
            response = connection.getresponse()
            if response.status != (206 if have else 200):
                raise RefusedError(response.status, _message(response.read(4096)) or "the file is refused")
            found = _CONTENT_RANGE.fullmatch(response.getheader("Content-Range") or "")
            if have and (found is None or int(found[1]) != have):
                raise RefusedError(response.status, f"another range of {item.path} than was asked for")
            while data := response.read1(_CHUNK):
                yield data
        finally:
            connection.close()


def _headers(credential: str) -> dict[str, str]:
    headers = {"User-Agent": f"edgeflow-simulation/{VERSION}", "Accept-Encoding": "identity"}
    if credential:
        headers["Authorization"] = f"Bearer {credential}"
    return headers


def _message(body: bytes) -> str:
    try:
        value = json.loads(body)
    except ValueError:
        return ""
    text = value.get("message") if isinstance(value, dict) else None
    return text[:500] if isinstance(text, str) else ""
