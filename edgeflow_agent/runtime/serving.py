"""The thread in which the event loop of the HTTP server runs."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import threading
from collections.abc import Callable, Mapping

from edgeflow_agent.config import AgentConfig
from edgeflow_agent.inference import http
from edgeflow_agent.inference.drift_view import DriftView
from edgeflow_agent.inference.http_reader import Limits
from edgeflow_agent.inference.messages import Response
from edgeflow_agent.inference.metrics import Metrics
from edgeflow_agent.inference.observing import Observer
from edgeflow_agent.inference.predictor import Predictor
from edgeflow_agent.inference.routes import Routes
from edgeflow_agent.inference.slot import Slot

logger = logging.getLogger(__name__)

_OTHER_FILES = 128


class ServingThread:
    """Answers inference requests from `start` to `stop`."""

    def __init__(
        self,
        config: AgentConfig,
        slot: Slot,
        *,
        extra_metrics: Callable[[], Mapping[str, float]] = dict,
        drift: Callable[[], DriftView] = DriftView,
        previous_digest: Callable[[], str] = str,
    ) -> None:
        self._config = config
        self._slot = slot
        self._listener: socket.socket = (
            http.bind_unix(config.unix_socket) if config.unix_socket else http.bind(config.host, config.port)
        )
        self.url = http.url_of(self._listener)
        _allow_open_files(config.max_connections + _OTHER_FILES)
        if not http.is_loopback(self._listener):
            logger.warning(
                "anybody who reaches %s can ask this model: serve.host is not loopback", config.host
            )
        self.metrics = Metrics()
        self.observer = Observer()
        self._extra_metrics = extra_metrics
        self._drift = drift
        self._previous_digest = previous_digest
        self._loop: asyncio.AbstractEventLoop | None = None
        self._routes: Routes | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgeflow-http", daemon=True)

    def start(self) -> None:
        """Begin to answer; returns when the socket listens."""
        self._thread.start()
        self._ready.wait(10.0)

    def stop(self) -> None:
        """Answer what was asked, then end; may be called twice."""
        loop, stop = self._loop, self._stop
        if self._thread.is_alive() and loop is not None and stop is not None:
            loop.call_soon_threadsafe(stop.set)
            self._thread.join(self._config.drain_s + 5.0)

    def alive(self, timeout_s: float = 2.0) -> bool:
        """Whether the event loop still takes its turns."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return False
        turn = threading.Event()
        loop.call_soon_threadsafe(turn.set)
        return turn.wait(timeout_s)

    def predict(self, body: bytes, deliver: Callable[[Response], None]) -> None:
        """What `POST /infer` would answer, for another thread; `deliver` is called on the event loop."""
        loop, routes = self._loop, self._routes
        assert loop is not None
        assert routes is not None
        future = routes.predict_from(loop, body)
        future.add_done_callback(lambda done: deliver(done.result()))

    def health(self) -> Response:
        """What `GET /health` answers."""
        assert self._routes is not None
        return self._routes.health()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        config = self._config
        predictor = Predictor(
            self._slot,
            self.metrics,
            self.observer,
            asyncio.get_running_loop(),
            timeout_s=config.timeout_s,
            queue=config.queue,
            max_concurrent=config.max_concurrent,
            max_body=int(config.max_body_mb * (1 << 20)),
        )
        self._routes = Routes(
            self._slot,
            predictor,
            self.metrics,
            extra_metrics=self._extra_metrics,
            drift=self._drift,
            previous_digest=self._previous_digest,
        )
        limits = Limits(
            max_body=int(config.max_body_mb * (1 << 20)),
            header_timeout_s=config.header_timeout_s,
            body_timeout_s=config.body_timeout_s,
            idle_timeout_s=config.idle_timeout_s,
            max_connections=config.max_connections,
        )
        server = http.HttpServer(self._routes, limits, self._listener)
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await server.start()
        self._ready.set()
        await self._stop.wait()
        await server.stop(config.drain_s)
        predictor.close()


def _allow_open_files(wanted: int) -> None:
    """Raise the number of files that may be open, as far as the system lets: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        logger.warning(
            "the system allows %d open files, so fewer connections than serve.max_connections", most
        )
