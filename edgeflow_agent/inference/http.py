"""The device's HTTP server: the socket, the connections, and a stop that loses no request."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from edgeflow_agent import errors
from edgeflow_agent.inference.http_protocol import Connection
from edgeflow_agent.inference.http_reader import Limits
from edgeflow_agent.inference.known_heads import KnownHeads
from edgeflow_agent.inference.messages import Application

_BACKLOG = 512
_RECEIVED_AT_ONCE = 64 * 1024


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; raise ConfigError that says which setting to change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise errors.ConfigError(f"cannot resolve serve.host {host!r}: {error.strerror}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise errors.ConfigError(
            f"cannot answer on {host} port {port}: {error.strerror}; choose another port with --port "
            "or serve.port (0 takes any free one)"
        ) from error
    return listener


def bind_unix(path: str) -> socket.socket:
    """A bound socket in the file system; raise ConfigError that says which setting to change. One that a
    killed process left behind is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_stale(path):
            Path(path).unlink(missing_ok=True)
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise errors.ConfigError(
            f"cannot answer on the socket {path}: {error.strerror or error}; choose another path with "
            "--unix-socket or serve.unix_socket"
        ) from error
    return listener


def _is_stale(path: str) -> bool:
    """Whether a socket is there on which nobody listens."""
    if not Path(path).is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False


def url_of(listener: socket.socket) -> str:
    """The address that a client on this device uses."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - recognised, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this device can reach it."""
    if listener.family == socket.AF_UNIX:
        return True
    host = str(listener.getsockname()[0])
    return host == "::1" or host.startswith("127.")


class HttpServer:
    """Serves one application on one socket. All methods belong to the event loop."""

    def __init__(self, app: Application, limits: Limits, listener: socket.socket) -> None:
        self._app = app
        self._limits = limits
        self._listener = listener
        self._connections: set[Connection] = set()
        self._heads = KnownHeads()
        self._buffer = memoryview(bytearray(_RECEIVED_AT_ONCE))
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to accept connections."""
        loop = asyncio.get_running_loop()
        create = loop.create_unix_server if self._listener.family == socket.AF_UNIX else loop.create_server
        self._server = await create(
            lambda: Connection(self._app, self._limits, self._connections, self._heads, self._buffer),
            sock=self._listener,
            backlog=_BACKLOG,
        )
        self._sweeper = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        limits = self._limits
        shortest = min(limits.header_timeout_s, limits.body_timeout_s, limits.idle_timeout_s)
        while True:
            await asyncio.sleep(min(1.0, shortest / 4))
            now = time.monotonic()
            for connection in list(self._connections):
                connection.sweep(now)

    async def stop(self, drain_s: float) -> None:
        """Accept nothing more, answer what was asked, at most for `drain_s`."""
        path = self._listener.getsockname() if self._listener.family == socket.AF_UNIX else ""
        if self._server is not None:
            self._server.close()
        if path:
            Path(path).unlink(missing_ok=True)
        for connection in list(self._connections):
            connection.stop()
        deadline = time.monotonic() + drain_s
        while self._connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if self._sweeper is not None:
            self._sweeper.cancel()
