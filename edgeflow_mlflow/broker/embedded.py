"""The embedded broker: one thread with one event loop, started and stopped as a whole."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import socket
import ssl
import threading
import time
from asyncio import sslproto

from edgeflow_agent.wire import topics
from edgeflow_mlflow import errors
from edgeflow_mlflow.broker.engine import Engine
from edgeflow_mlflow.broker.gatekeeper import Gatekeeper
from edgeflow_mlflow.broker.port import PORT_SETTING, EmbeddedSettings, Handlers

logger = logging.getLogger(__name__)

_BEAT_S = 1.0
_LATE_S = 10.0
_BACKLOG = 1024
_STOP_S = 30.0
# asyncio keeps 256 KiB for every TLS connection; a TLS record is at most 16 KiB.
_TLS_BUFFER = 16 * 1024


class EmbeddedBroker:
    """amqtt behind the gatekeeper."""

    def __init__(self, settings: EmbeddedSettings, handlers: Handlers) -> None:
        self._settings = settings
        self._handlers = handlers
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gate: Gatekeeper | None = None
        self._stopping: asyncio.Event | None = None
        self._beat = 0.0
        self._port = settings.port

    def start(self) -> None:
        """Listen; raise SettingError when the port is taken or the certificate cannot be used."""
        if self._thread is not None:
            raise RuntimeError("the broker is started already")
        context = _tls(self._settings)
        listener = _listen(self._settings)
        self._port = listener.getsockname()[1]
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._run, args=(listener, context, ready), name="edgeflow-mqtt", daemon=True
        )
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise

    def stop(self) -> None:
        """Close every connection, run their handlers, end the thread."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None and thread.is_alive():
            try:
                loop.call_soon_threadsafe(stopping.set)
            except RuntimeError:
                logger.debug("the broker's loop has ended by itself")
        thread.join(_STOP_S)
        if thread.is_alive():
            logger.error("the MQTT broker did not stop within %.0f s", _STOP_S)

    def publish(self, target: str, kind: topics.Kind, payload: bytes) -> bool:
        """True when the target is connected and has subscribed to this kind."""
        gate = self._gate
        try:
            return gate is not None and gate.publish(target, kind, payload)
        except RuntimeError:  # the loop has just ended
            return False

    def disconnect(self, target: str) -> None:
        """Close the target's connection."""
        gate, loop = self._gate, self._loop
        if gate is not None and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                loop.call_soon_threadsafe(gate.disconnect, target)

    def connected(self) -> frozenset[str]:
        """Targets with an admitted connection."""
        gate = self._gate
        return gate.connected() if gate is not None else frozenset()

    def healthy(self) -> bool:
        """Whether the event loop has turned lately."""
        return self._gate is not None and time.monotonic() - self._beat < _LATE_S

    @property
    def address(self) -> str:
        """The URL for devices, with the port that is really in use."""
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        return f"{'mqtts' if self._settings.certfile else 'mqtt'}://{host}:{self._port}"

    def _run(
        self,
        listener: socket.socket,
        context: ssl.SSLContext | None,
        ready: concurrent.futures.Future[None],
    ) -> None:
        try:
            asyncio.run(self._main(listener, context, ready))
        except Exception as error:
            if ready.done():
                logger.exception("the MQTT broker ended with an error")
            else:
                ready.set_exception(error)
        finally:
            self._gate = self._loop = self._stopping = None
            listener.close()

    async def _main(
        self,
        listener: socket.socket,
        context: ssl.SSLContext | None,
        ready: concurrent.futures.Future[None],
    ) -> None:
        stopping = asyncio.Event()
        workers = concurrent.futures.ThreadPoolExecutor(self._settings.workers, "edgeflow-mqtt-worker")
        logins = concurrent.futures.ThreadPoolExecutor(self._settings.logins, "edgeflow-mqtt-login")
        engine = Engine()
        try:
            await engine.start()
            gate = Gatekeeper(
                settings=self._settings,
                handlers=self._handlers,
                engine=engine,
                listener=listener,
                context=context,
                workers=workers,
                logins=logins,
            )
            self._loop, self._stopping, self._gate = asyncio.get_running_loop(), stopping, gate
            self._beat = time.monotonic()
            ready.set_result(None)
            logger.info("MQTT broker on %s", self.address)
            while not stopping.is_set():
                self._beat = time.monotonic()
                try:
                    async with asyncio.timeout(_BEAT_S):
                        await stopping.wait()
                except TimeoutError:
                    continue
            listener.close()
            await gate.stop()
            await engine.stop()
        finally:
            workers.shutdown(wait=False, cancel_futures=True)
            logins.shutdown(wait=False, cancel_futures=True)


def _listen(settings: EmbeddedSettings) -> socket.socket:
    where = f"{settings.host}:{settings.port}"
    try:
        if not 0 <= settings.port < 65536:  # getaddrinfo would wrap it round
            raise OverflowError("a port is a number from 0 to 65535")
        family, kind, proto, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise errors.SettingError(
            f"the MQTT broker cannot listen on {where}: {reason}; change {PORT_SETTING}"
        ) from error
    return listener


def _tls(settings: EmbeddedSettings) -> ssl.SSLContext | None:
    if not settings.certfile and not settings.keyfile:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certfile, settings.keyfile or None)
    except (OSError, ssl.SSLError) as error:
        raise errors.SettingError(
            f"the MQTT broker cannot use its certificate ({settings.certfile}) and key: {error}; "
            "change certfile and keyfile of [mqtt] in edgeflow.toml"
        ) from error
    if hasattr(sslproto.SSLProtocol, "max_size"):
        sslproto.SSLProtocol.max_size = _TLS_BUFFER
    return context
