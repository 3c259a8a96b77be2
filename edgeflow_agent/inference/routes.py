"""Which request does what: the one table of routes of the device's HTTP server."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from edgeflow_agent.inference.http_protocol import Deliver, Request, Response, error_response
from edgeflow_agent.inference.metrics import Metrics
from edgeflow_agent.inference.predictor import Predictor
from edgeflow_agent.inference.slot import Serving, Slot
from edgeflow_agent.wire import documents

_METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Routes:
    """The application behind the HTTP server."""

    def __init__(
        self,
        slot: Slot,
        predictor: Predictor,
        metrics: Metrics,
        *,
        extra_metrics: Callable[[], Mapping[str, float]] = dict,
        previous_digest: Callable[[], str] = str,
    ) -> None:
        self._slot = slot
        self._predictor = predictor
        self._metrics = metrics
        self._extra_metrics = extra_metrics
        self._previous_digest = previous_digest
        self._gets: dict[bytes, Callable[[], Response]] = {
            b"/health": self.health,
            b"/model": self.model,
            b"/metrics": self.metrics,
        }

    def __call__(self, request: Request, deliver: Deliver) -> Response | None:
        """Answer now, or later through `deliver`."""
        if request.path == b"/infer":
            if request.method == b"POST":
                return self._predictor.infer(request.body, deliver)
            return _not_allowed(request, "POST")
        handler = self._gets.get(request.path)
        if handler is None:
            path = request.path.decode("latin-1")[:200]
            return error_response(
                404,
                "not_found",
                f"there is no {path}; known are POST /infer, GET /health, GET /model, GET /metrics",
            )
        if request.method not in (b"GET", b"HEAD"):
            return _not_allowed(request, "GET, HEAD")
        return handler()

    def health(self) -> Response:
        """Whether this device can answer inference requests."""
        serving = self._slot.current
        if serving is None:
            body = {"status": "no_model"}
            return Response(503, msgspec.json.encode(body))
        return Response(200, msgspec.json.encode({"status": "ok", "model": _name(serving)}))

    def model(self) -> Response:
        """What answers, where it comes from and what it takes."""
        serving = self._slot.current
        if serving is None:
            return error_response(404, "no_model", "no model is deployed on this device yet")
        body = {
            "name": serving.model.name,
            "version": serving.model.version,
            "run_id": serving.model.run_id,
            "digest": serving.digest,
            "deployment": serving.deployment,
            "execution": serving.execution,
            "generation": serving.generation,
            "loaded_at": serving.loaded_at,
            "previous": self._previous_digest(),
            "interface": documents.to_builtins(serving.interface),
        }
        return Response(200, msgspec.json.encode(body))

    def metrics(self) -> Response:
        """Counters for Prometheus."""
        text = self._metrics.render(self._slot, self._extra_metrics)
        return Response(200, text.encode(), _METRICS_TYPE)

    async def predict(self, body: bytes) -> Response:
        """What `POST /infer` would answer; for callers on the event loop that are no HTTP client."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def deliver(response: Response) -> None:
            if not future.done():
                future.set_result(response)

        response = self._predictor.infer(body, deliver)
        return response if response is not None else await future

    def predict_from(
        self, loop: asyncio.AbstractEventLoop, body: bytes
    ) -> concurrent.futures.Future[Response]:
        """The same for callers in another thread than `loop`'s."""
        return asyncio.run_coroutine_threadsafe(self.predict(body), loop)


def _name(serving: Serving) -> dict[str, Any]:
    return {"name": serving.model.name, "version": serving.model.version}


def _not_allowed(request: Request, allowed: str) -> Response:
    path = request.path.decode("latin-1")[:200]
    headers = f"Allow: {allowed}\r\n".encode()
    return error_response(405, "method_not_allowed", f"{path} takes {allowed}", headers=headers)
