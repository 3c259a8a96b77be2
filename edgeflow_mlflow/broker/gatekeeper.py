"""The gate in front of the embedded broker: who may connect, how many, and how a connection ends.

Nothing of a connection reaches the broker before its CONNECT is read, judged and its credential right,
so a wrong password cannot touch a session. The rules stand in `admission`, the bytes in `packets`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from edgeflow_agent.wire import topics
from edgeflow_mlflow.broker import admission, packets
from edgeflow_mlflow.broker.connection import Connection
from edgeflow_mlflow.broker.engine import Engine
from edgeflow_mlflow.broker.port import EmbeddedSettings, Handlers

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
# A stranger that has said nothing for this long makes room when all places are taken. Not less: when
# a whole fleet comes back, a device waits about half a second for this loop to get to its CONNECT.
_PATIENCE_S = 2.0
_TAKEOVER_S = 10.0
_CLOSE_S = 5.0
_LOGINS_AT_ONCE = 64


class Gatekeeper:
    """Accepts, judges, admits. Everything belongs to one event loop, except `connected` and `publish`."""

    def __init__(
        self,
        *,
        settings: EmbeddedSettings,
        handlers: Handlers,
        engine: Engine,
        listener: socket.socket,
        context: ssl.SSLContext | None,
        workers: Executor,
        logins: Executor,
    ) -> None:
        self._settings = settings
        self._handlers = handlers
        self._engine = engine
        self._listener = listener
        self._context = context
        self._workers = workers
        self._logins = logins
        self._live: dict[str, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Connections whose CONNECT has not come yet, oldest first.
        self._silent: dict[asyncio.Task[None], float] = {}
        self._fewer = asyncio.Event()
        self._judging = asyncio.Semaphore(_LOGINS_AT_ONCE)
        self._serial = itertools.count(1)
        self._failures = admission.Failures(
            per_target=settings.failures_per_target,
            per_address=settings.failures_per_address,
            window_s=settings.failures_window_s,
        )
        self._loop = asyncio.get_running_loop()
        self._accepting = self._loop.create_task(self._accept(), name="edgeflow-mqtt-accept")

    def connected(self) -> frozenset[str]:
        """Targets with an admitted connection; may be called from any thread."""
        return frozenset(name for name, item in self._live.copy().items() if not item.closing)

    def publish(self, target: str, kind: topics.Kind, payload: bytes) -> bool:
        """Send to a connected target that listens to this kind; may be called from any thread."""
        connection = self._live.get(target)
        if connection is None or connection.closing or kind not in connection.subscribed:
            return False
        if connection.owe(payload):
            self._loop.call_soon_threadsafe(self._engine.publish, connection, kind, payload)
            return True
        connection.settle(payload)
        self._loop.call_soon_threadsafe(connection.abort, "it does not confirm what it is sent")
        return False

    def disconnect(self, target: str) -> None:
        """Close a target's connection, if there is one."""
        if (connection := self._live.get(target)) is not None:
            connection.end("the server closed it")

    async def stop(self) -> None:
        """Accept nobody any more, close everybody, and wait until their handlers have run."""
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        for task in list(self._silent):
            task.cancel()
        for connection in list(self._live.values()):
            connection.end("")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            await self._room()
            try:
                sock, _ = await self._loop.sock_accept(self._listener)
            except OSError as error:  # out of file descriptors, or the peer has gone already
                logger.warning("cannot accept an MQTT connection: %s", error)
                await asyncio.sleep(0.2)
                continue
            task = self._loop.create_task(self._serve(sock))
            self._tasks.add(task)
            self._silent[task] = self._loop.time()
            task.add_done_callback(self._gone)

    async def _room(self) -> None:
        """Wait for a place; the oldest silent connection gives up its own."""
        while len(self._silent) >= self._settings.max_pending or self._judging.locked():
            self._fewer.clear()
            oldest = next(iter(self._silent), None)
            wait = patience = min(_PATIENCE_S, self._settings.connect_timeout_s / 2)
            if oldest is not None:
                wait = self._silent[oldest] + patience - self._loop.time()
                if wait <= 0 and not self._judging.locked():
                    oldest.cancel()
                    self._heard(oldest)
                    continue
            try:
                async with asyncio.timeout(max(wait, 0.01)):
                    await self._fewer.wait()
            except TimeoutError:
                continue

    def _heard(self, task: asyncio.Task[None] | None) -> None:
        if task is not None and self._silent.pop(task, None) is not None:
            self._fewer.set()

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._heard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an MQTT connection ended with an error", exc_info=error)

    async def _serve(self, sock: socket.socket) -> None:
        """One connection, from accept to its end."""
        reader = asyncio.StreamReader(loop=self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        parser = packets.Parser(limit=self._settings.max_connect_bytes, allowed=packets.FIRST)
        transport: asyncio.BaseTransport | None = None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = sock.getpeername()[:2]
            async with asyncio.timeout(self._settings.connect_timeout_s):
                transport, _ = await self._loop.connect_accepted_socket(
                    lambda: protocol, sock, ssl=self._context
                )
                connect = await self._read_connect(reader, parser)
            writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
            if connect is not None:
                await self._receive(connect, peer, reader, writer, parser)
        except (TimeoutError, OSError, ssl.SSLError):
            pass  # a stranger that said nothing, or has gone
        except packets.PacketError as error:
            logger.info("refused an MQTT connection: %s", error)
        finally:
            if transport is not None:
                transport.close()
                self._loop.call_later(1.0, transport.abort)  # type: ignore[attr-defined]
            else:
                sock.close()

    async def _read_connect(
        self, reader: asyncio.StreamReader, parser: packets.Parser
    ) -> packets.Connect | None:
        while (packet := parser.take()) is None:
            data = await reader.read(self._settings.max_connect_bytes)
            if not data:
                return None
            parser.feed(data)
        return packets.parse_connect(packet)

    async def _receive(
        self,
        connect: packets.Connect,
        peer: tuple[str, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        parser: packets.Parser,
    ) -> None:
        """Judge a CONNECT; refuse it, or serve the connection until it ends."""
        async with self._judging:
            self._heard(asyncio.current_task())
            refusal = admission.judge(connect, self._settings) or await self._log_in(connect, peer[0])
        self._fewer.set()
        if refusal is not None:
            logger.info("refused %r from %s: %s", connect.client_id[:80], peer[0], refusal.reason)
            writer.write(packets.refusal(refusal.code, connect.level))
            return
        parser.limit, parser.allowed = self._settings.max_packet_bytes, packets.LATER
        connection = Connection(
            target=connect.client_id,
            session_id=f"{connect.client_id}~{next(self._serial)}",
            keepalive_s=connect.keepalive_s,
            peer=peer,
            reader=reader,
            writer=writer,
            parser=parser,
            settings=self._settings,
            deliver=self._deliver,
        )
        if not await self._enter(connection):
            writer.write(packets.refusal(packets.Code.UNAVAILABLE, connect.level))
            return
        try:
            await self._call(self._handlers.on_connect, connection.target)
            await self._engine.run(connection)
        finally:
            connection.end("")
            await self._leave(connection)

    async def _log_in(self, connect: packets.Connect, address: str) -> admission.Refusal | None:
        target, password = connect.client_id, connect.password or ""
        if self._failures.blocked(address, target, self._loop.time()):
            return admission.Refusal(packets.Code.UNAVAILABLE, "too many wrong passwords; wait a minute")
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                right = await self._loop.run_in_executor(
                    self._logins, self._handlers.authenticate, target, password
                )
        except Exception:
            logger.exception("cannot check the credential of %s", target)
            return admission.Refusal(packets.Code.UNAVAILABLE, "the credential could not be checked")
        if not right:
            self._failures.failed(address, target, self._loop.time())
            return admission.Refusal(packets.Code.CREDENTIALS, "a wrong credential")
        self._failures.succeeded(address, target)
        return None

    async def _enter(self, connection: Connection) -> bool:
        """Take the target's place; an older connection of it ends first, with its handlers."""
        target = connection.target
        while (older := self._live.get(target)) is not None:
            older.end("the target connected again")
            try:
                async with asyncio.timeout(_TAKEOVER_S):
                    await older.ended.wait()
            except TimeoutError:
                return False
        if len(self._live) >= self._settings.max_clients:
            logger.error(
                "refused %s: %d devices are connected; use an external broker for more",
                target,
                len(self._live),
            )
            return False
        self._live[target] = connection
        return True

    async def _leave(self, connection: Connection) -> None:
        try:
            await self._call(self._handlers.on_disconnect, connection.target)
        finally:
            del self._live[connection.target]
            connection.ended.set()

    async def _deliver(self, target: str, kind: topics.Kind, payload: bytes) -> None:
        await self._call(self._handlers.on_message, target, kind, payload)

    async def _call(self, handler: Callable[..., None], *args: object) -> None:
        """Run a handler in a worker thread; its error is logged and goes no further."""
        try:
            await self._loop.run_in_executor(self._workers, handler, *args)
        except Exception:
            logger.exception("a handler of the MQTT broker failed")
