"""What Flask cannot do behind MLflow's ASGI bridge: bound a body before it is in memory, and stream a file.

The bridge collects a whole request before Flask sees it and queues a whole response without bound, so
both are done in front of it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response

from edgeflow_mlflow import errors
from edgeflow_mlflow.api import devices, identity, origin, responses
from edgeflow_mlflow.api.routing import PREFIX, Policy
from edgeflow_mlflow.catalog import Catalog
from edgeflow_mlflow.services.state import State

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# MLflow streams these itself; they may be as large as a model.
_UPLOADS = re.compile(r"/(?:ajax-)?api/(?:2|3)\.0/mlflow-artifacts/")


# Up to here a refused body is still read, so that the refusal can be.
_DRAIN = 16 * 2**20


class EdgeflowASGI:
    """Bodies are bounded, model files are streamed, everything else goes on to MLflow's app."""

    def __init__(self, app: App, *, state: State, catalog: Catalog, prefix: str) -> None:
        self._app = app
        self._state = state
        self._catalog = catalog
        self._prefix = prefix + PREFIX
        self._upload_prefix = prefix
        self._blobs = re.compile(re.escape(self._prefix) + r"/device/blobs/([^/]+)")
        self._json_limit: int = state.config["limits.json_body_kb"] * 1024
        self._mlflow_limit: int = state.config["limits.mlflow_body_mb"] * 2**20
        self._allowed_hosts = frozenset(state.config["server.allowed_hosts"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection event of the server in front."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        match = self._blobs.fullmatch(scope["path"])
        if match is not None and scope["method"] in ("GET", "HEAD"):
            response = await self._blob(match[1], Headers(scope=scope))
            await response(scope, receive, send)
            return
        if scope["path"].startswith(self._prefix) and not scope["path"].isprintable():
            # The router in front of Flask stops at a line break and would answer in words of its own.
            await _refusal(404, "RESOURCE_DOES_NOT_EXIST", "no such route")(scope, receive, send)
            return
        await self._bounded(scope, receive, send)

    async def _blob(self, sha256: str, headers: Headers) -> Response:
        try:
            path = await run_in_threadpool(self._find, sha256, headers)
        except errors.ServerError as error:
            refused = responses.of_error(error)
        except (OperationalError, PoolTimeoutError) as error:
            refused = responses.of_busy(error)
        else:
            return FileResponse(path, media_type="application/octet-stream", headers={"ETag": f'"{sha256}"'})
        return Response(refused.get_data(), refused.status_code, dict(refused.headers))

    def _find(self, sha256: str, headers: Headers) -> str:
        origin.check_host(headers.get("host", ""), self._allowed_hosts)
        actor = identity.identify(
            self._state, Policy.DEVICE, headers.get("authorization", ""), user_check=None
        )
        return devices.find_blob(self._state, self._catalog, actor.target, sha256)

    def _limit(self, path: str) -> int:
        if path.startswith(self._prefix + "/"):
            return self._json_limit
        if _UPLOADS.match(path.removeprefix(self._upload_prefix)):
            return 0
        return self._mlflow_limit

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limit(scope["path"])
        if not limit:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "")
        if declared.isdigit():  # the server in front holds the client to what it declared
            if int(declared) > limit:
                if int(declared) <= _DRAIN:
                    await _drained(receive)
                await self._refuse(limit)(scope, receive, send)
            else:
                await self._app(scope, receive, send)
            return
        if "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        # Without a declared length there is only one way to know; the bridge would collect it anyway.
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client is gone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                await self._refuse(limit)(scope, receive, send)
                return
        await self._app(scope, _replay(bytes(body), receive), send)

    @staticmethod
    def _refuse(limit: int) -> Response:
        return _refusal(413, "INVALID_PARAMETER_VALUE", f"the body is over the limit of {limit} bytes")


def _refusal(status: int, code: str, message: str) -> Response:
    headers = {"Content-Type": responses.JSON}
    if status == 413:
        headers["Connection"] = "close"
    return Response(responses.body(code, message), status, headers)


async def _drained(receive: Receive) -> None:
    """Throw a body away. A client that is still sending would otherwise see a broken connection instead
    of the answer."""
    more = True
    while more:
        message = await receive()
        more = message["type"] == "http.request" and message.get("more_body", False)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the collected body once and then what really comes."""
    given = False

    async def replayed() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
