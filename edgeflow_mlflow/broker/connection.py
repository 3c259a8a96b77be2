"""One admitted device: the bytes between its socket and the broker behind the gate.

The broker pulls (`read`), so whatever makes this wait - a message being stored, the rate limit - stops
the reading of that device's socket, delays its PUBACK, and costs no memory.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Container

from edgeflow_agent.wire import topics
from edgeflow_mlflow.broker import admission, packets
from edgeflow_mlflow.broker.port import EmbeddedSettings

logger = logging.getLogger(__name__)

_CHUNK = 65536
_FLUSH_S = 1.0
_GRACE = 1.5
# What a queued message costs beside its payload, roughly.
_OVERHEAD = 512

Deliver = Callable[[str, topics.Kind, bytes], Awaitable[None]]


class Connection:
    """Reader and writer for the broker, and the filter on what the device sends.

    `session_id` is never used twice, so the broker behind the gate never sees a client come back and
    has nothing to take over, keep or mix up.
    """

    def __init__(
        self,
        *,
        target: str,
        session_id: str,
        keepalive_s: int,
        peer: tuple[str, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        parser: packets.Parser,
        settings: EmbeddedSettings,
        deliver: Deliver,
    ) -> None:
        self.target = target
        self.session_id = session_id
        # The broker behind the gate has been told that nothing more comes.
        self.over = asyncio.Event()
        # Its handlers have run and its place is free.
        self.ended = asyncio.Event()
        self.subscribed: dict[topics.Kind, int] = {}
        # Packet ids that wait for a PUBACK; the engine puts the session's own table here.
        self.in_flight: Container[int] = ()
        self._peer = peer
        self._reader = reader
        self._writer = writer
        self._parser = parser
        self._settings = settings
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._silence_s = keepalive_s * _GRACE
        self._deadline = self._loop.time() + self._silence_s
        self._bucket = admission.Bucket(
            rate=settings.messages_per_s, burst=settings.message_burst, now=self._loop.time()
        )
        self._ready = bytearray(packets.encode_connect(session_id, target))
        self._closing = False
        self._owed = 0
        self._owed_lock = threading.Lock()

    # What the broker behind the gate calls.

    async def read(self, n: int = -1) -> bytes:
        """Exactly `n` bytes of packets that may pass, or nothing when the connection is over."""
        while len(self._ready) < max(n, 1):
            raw = await self._next()
            if not raw:
                self.over.set()
                return b""
            self._ready += raw
        size = n if n >= 0 else len(self._ready)
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data

    def feed_eof(self) -> None:
        """Part of the reader's interface; the socket's own end is what counts."""

    def write(self, data: bytes) -> None:
        """Queue bytes for the device, up to the limit of a slow consumer."""
        if self._closing:
            return
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > self._settings.max_outbound_bytes:
            self.abort("it does not read what it is sent")

    async def drain(self) -> None:
        """Return at once: waiting here would queue messages without bound behind the broker's lock."""

    def get_peer_info(self) -> tuple[str, int]:
        """Address and port of the device."""
        return self._peer

    def get_ssl_info(self) -> None:
        """TLS ended at the gate."""

    async def close(self) -> None:
        """The broker is done with this device."""
        self.end("")

    # What the gate and the engine call.

    def end(self, reason: str) -> None:
        """Close after what is queued is sent, but not later than a second from now."""
        if self._closing:
            return
        self._closing = True
        if reason:
            logger.warning("closed the connection of %s: %s", self.target, reason)
        self._writer.transport.close()
        self._loop.call_later(_FLUSH_S, self._writer.transport.abort)

    def abort(self, reason: str) -> None:
        """Close at once, without sending what is queued."""
        self.end(reason)
        self._writer.transport.abort()

    def owe(self, payload: bytes) -> bool:
        """Count a message that is to be sent and confirmed; False when too much waits already.

        From any thread: the count includes what the event loop has not seen yet.
        """
        with self._owed_lock:
            self._owed += len(payload) + _OVERHEAD
            return self._owed <= self._settings.max_outbound_bytes

    def settle(self, payload: bytes) -> None:
        """The message is confirmed or given up."""
        with self._owed_lock:
            self._owed -= len(payload) + _OVERHEAD

    @property
    def closing(self) -> bool:
        """Whether the end has begun."""
        return self._closing

    async def _next(self) -> bytes:
        while not self._closing:
            try:
                packet = self._parser.take()
                if packet is None:
                    if not await self._receive():
                        return b""
                    continue
                passes = await self._judge(packet)
            except packets.PacketError as error:
                self.end(str(error))
                return b""
            # Silence is counted from here, not from the arrival: while a message was being stored,
            # nothing was read.
            self._deadline = self._loop.time() + self._silence_s
            if passes:
                return packet.raw
        return b""

    async def _receive(self) -> bool:
        try:
            async with asyncio.timeout_at(self._deadline):
                data = await self._reader.read(_CHUNK)
        except TimeoutError:
            self.end(f"silent for {self._silence_s:.0f} s")
            return False
        except OSError:
            return False
        self._parser.feed(data)
        return bool(data)

    async def _judge(self, packet: packets.Packet) -> bool:
        """Whether the packet goes on to the broker; raise PacketError when it ends the connection."""
        if packet.type is packets.Type.PUBACK and packets.parse_puback(packet) in self.in_flight:
            return True
        delay = self._bucket.delay(self._loop.time())
        if delay:
            await asyncio.sleep(delay)
        match packet.type:
            case packets.Type.PUBLISH:
                message = packets.parse_publish(packet)
                kind = admission.judge_publish(self.target, message)
                await self._deliver(self.target, kind, message.payload)
            case packets.Type.SUBSCRIBE:
                filters = packets.parse_subscribe(packet)
                kinds = {admission.judge_filter(self.target, name): qos for name, qos in filters}
                self.subscribed.update({kind: min(qos, 1) for kind, qos in kinds.items()})
            case packets.Type.UNSUBSCRIBE:
                for name in packets.parse_unsubscribe(packet):
                    self.subscribed.pop(admission.judge_filter(self.target, name), None)
            case packets.Type.PUBACK:
                return False  # for nothing that was sent: the broker would log each one
        return True
