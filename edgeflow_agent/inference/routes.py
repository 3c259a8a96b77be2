"""Which request does what: the one table of routes of the device's HTTP server."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from edgeflow_agent import version
from edgeflow_agent.inference.drift_view import DriftView
from edgeflow_agent.inference.messages import TEXT, Deliver, Request, Response
from edgeflow_agent.inference.metrics import Metrics
from edgeflow_agent.inference.predictor import Predictor
from edgeflow_agent.inference.protocols import natural, oip, oip_pages, scoring
from edgeflow_agent.inference.protocols.asked import Read
from edgeflow_agent.inference.refusals import RefusedError, refusal, refused
from edgeflow_agent.inference.slot import Serving, Slot
from edgeflow_agent.wire import documents

_METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_MODELS = b"/v2/models/"

Handler = Callable[[Request, Deliver], Response | None]
# The same for what stands below a model: its name, and its version or nothing, come first.
ModelHandler = Callable[[str, str, Request, Deliver], Response | None]


class Routes:
    """The application behind the HTTP server."""

    def __init__(
        self,
        slot: Slot,
        predictor: Predictor,
        metrics: Metrics,
        *,
        extra_metrics: Callable[[], Mapping[str, float]] = dict,
        drift: Callable[[], DriftView] = DriftView,
        previous_digest: Callable[[], str] = str,
    ) -> None:
        self._slot = slot
        self._predictor = predictor
        self._metrics = metrics
        self._extra_metrics = extra_metrics
        self._drift = drift
        self._previous_digest = previous_digest
        self._infer = self._inference(natural.read)
        self._table: dict[bytes, dict[bytes, Handler]] = {
            b"/infer": {b"POST": self._infer},
            b"/health": _get(self.health),
            b"/model": _get(self.model),
            b"/metrics": _get(self.metrics),
            b"/invocations": {b"POST": self._inference(scoring.read)},
            b"/ping": _get(self._ping),
            b"/version": _get(lambda: Response(200, version.VERSION.encode(), TEXT)),
            b"/v2": _get(lambda: _page(oip_pages.server())),
            b"/v2/health/live": _get(lambda: _page({"live": True})),
            b"/v2/health/ready": _get(self._ready),
            b"/v2/models/stats": _get(self._all_stats),
            b"/v2/repository/index": {b"POST": self._index},
        }
        # Below /v2/models/{model} and /v2/models/{model}/versions/{version}.
        self._model_table: dict[bytes, dict[bytes, ModelHandler]] = {
            b"": _get_of(self._page_of(oip_pages.model)),
            b"/ready": _get_of(self._page_of(lambda serving: {"name": serving.model.name, "ready": True})),
            b"/config": _get_of(self._page_of(oip_pages.config)),
            b"/stats": _get_of(self._page_of(oip_pages.stats)),
            b"/infer": {b"POST": self._infer_model},
        }

    def __call__(self, request: Request, deliver: Deliver) -> Response | None:
        """Answer now, or later through `deliver`."""
        methods = self._table.get(request.path) or self._below_model(request.path)
        handler = methods.get(request.method)
        if handler is not None:
            return handler(request, deliver)
        return self._without_handler(request, methods)

    def known(self) -> list[str]:
        """Every route, as `METHOD /path`."""
        named = {path.decode(): methods for path, methods in self._table.items()} | {
            f"/v2/models/{{model}}{between}{path.decode()}": methods
            for path, methods in self._model_table.items()
            for between in ("", "/versions/{version}")
        }
        return [
            f"{method.decode()} {path}"
            for path, methods in named.items()
            for method in methods
            if method != b"HEAD"
        ]

    def health(self) -> Response:
        """Whether this device can answer inference requests."""
        serving = self._slot.current
        if serving is None:
            return _page({"status": "no_model"}, 503)
        return _page({"status": "ok", "model": _name(serving)})

    def model(self) -> Response:
        """What answers, where it comes from and what it takes."""
        serving = self._slot.current
        if serving is None:
            return refusal(b"/model", 404, "no_model", "no model is deployed on this device yet")
        return _page(
            {
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
                "drift": self._drift().page(),
            }
        )

    def metrics(self) -> Response:
        """Counters for Prometheus."""
        text = self._metrics.render(self._slot, self._extra_metrics, self._drift())
        return Response(200, text.encode(), _METRICS_TYPE)

    async def predict(self, body: bytes) -> Response:
        """What `POST /infer` would answer; for callers on the event loop that are no HTTP client."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def deliver(response: Response) -> None:
            if not future.done():
                future.set_result(response)

        response = self._infer(Request(b"POST", b"/infer", b"", {}, body), deliver)
        return response if response is not None else await future

    def predict_from(
        self, loop: asyncio.AbstractEventLoop, body: bytes
    ) -> concurrent.futures.Future[Response]:
        """The same for callers in another thread than `loop`'s."""
        return asyncio.run_coroutine_threadsafe(self.predict(body), loop)

    def _inference(self, read: Read) -> Handler:
        return functools.partial(self._predictor.infer, read)

    def _infer_model(self, model: str, number: str, request: Request, deliver: Deliver) -> Response | None:
        return self._predictor.infer(functools.partial(oip.read, model, number), request, deliver)

    def _ping(self) -> Response:
        return msgspec.structs.replace(self.health(), body=b"\n")

    def _ready(self) -> Response:
        ready = self._slot.current is not None
        return _page({"ready": ready}, 200 if ready else 503)

    def _all_stats(self) -> Response:
        serving = self._slot.current
        return _page({"model_stats": []} if serving is None else oip_pages.stats(serving))

    def _index(self, _request: Request, _deliver: Deliver) -> Response:
        return _page(oip_pages.index(self._slot.current))

    def _page_of(self, page: Callable[[Serving], Any]) -> Callable[[str, str, Request], Response]:
        def answer(model: str, number: str, request: Request) -> Response:
            serving = self._slot.current
            if serving is None:
                return refusal(request.path, 404, "no_model", "no model is deployed on this device yet")
            try:
                oip.check_model(serving, model, number)
            except RefusedError as error:
                return refused(request.path, error)
            return _page(page(serving))

        return answer

    def _below_model(self, path: bytes) -> Mapping[bytes, Handler]:
        if not path.startswith(_MODELS):
            return {}
        model, *rest = path[len(_MODELS) :].split(b"/")
        version = b""
        if len(rest) > 1 and rest[0] == b"versions":
            _, version, *rest = rest
        methods = self._model_table.get(b"".join(b"/" + part for part in rest))
        if not model or methods is None:
            return {}
        names = urllib.parse.unquote_to_bytes(model), urllib.parse.unquote_to_bytes(version)
        said = [name.decode("utf-8", "replace") for name in names]
        return {method: functools.partial(handler, said[0], said[1]) for method, handler in methods.items()}

    def _without_handler(self, request: Request, methods: Mapping[bytes, Handler]) -> Response:
        path = request.path.decode("latin-1")[:200]
        allowed = ", ".join(["OPTIONS", *(method.decode() for method in methods)])
        headers = f"Allow: {allowed}\r\n".encode()
        if request.method == b"OPTIONS" and (methods or request.path == b"*"):
            return Response(200, b"", TEXT, headers)
        if methods:
            return refusal(request.path, 405, "method_not_allowed", f"{path} takes {allowed}", headers)
        known = ", ".join(self.known())
        return refusal(request.path, 404, "not_found", f"there is no {path}; known are {known}")


def _page(body: Any, status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(body))


def _get(page: Callable[[], Response]) -> dict[bytes, Handler]:
    def answer(_request: Request, _deliver: Deliver) -> Response:
        return page()

    return {b"GET": answer, b"HEAD": answer}


def _get_of(page: Callable[[str, str, Request], Response]) -> dict[bytes, ModelHandler]:
    def answer(model: str, number: str, request: Request, _deliver: Deliver) -> Response:
        return page(model, number, request)

    return {b"GET": answer, b"HEAD": answer}


def _name(serving: Serving) -> dict[str, Any]:
    return {"name": serving.model.name, "version": serving.model.version}
