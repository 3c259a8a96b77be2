"""MQTT for one of many devices: a paho client without a thread, driven by the loop.

Only connecting blocks, and happens in a thread of the pool; until it is done nobody else touches the client.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import selectors
import socket
import ssl
import urllib.parse
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt import enums as paho_enums

from edgeflow_agent import errors
from edgeflow_agent.wire import topics
from edgeflow_agent.wire.topics import Kind
from edgeflow_mlflow.simulation.loop import Loop

_KEEPALIVE_S = 30
_PATIENCE_S = 30.0
_OK = paho_enums.MQTTErrorCode.MQTT_ERR_SUCCESS


class Link:
    """At most one connection. `on_up` is called when it stands and the topics are asked for, `on_end` when it
    ends by itself (True: it never stood), `on_message` with what comes."""

    def __init__(
        self,
        loop: Loop,
        pool: concurrent.futures.Executor,
        target: str,
        *,
        on_up: Callable[[], None],
        on_end: Callable[[bool], None],
        on_message: Callable[[Kind, bytes], None],
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._target = target
        self._on_up = on_up
        self._on_end = on_end
        self._on_message = on_message
        self._client: Any = None
        self._up = False
        self._since = 0.0
        self._unconfirmed = 0

    @property
    def unconfirmed(self) -> int:
        """How many messages the broker has not confirmed."""
        return self._unconfirmed if self._up else 0

    def dial(self, url: str, credential: str) -> None:
        """Begin to connect."""
        self.hang_up()
        client = paho.Client(
            paho_enums.CallbackAPIVersion.VERSION2,
            client_id=self._target,
            clean_session=True,
            protocol=paho_enums.MQTTProtocolVersion.MQTTv311,
        )
        client.username_pw_set(self._target, credential)
        client.connect_timeout = 10
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = self._message
        client.on_publish = self._confirmed
        client.on_socket_close = self._socket_closed
        host, port, secure = broker_address(url)
        if secure:
            client.tls_set_context(ssl.create_default_context())
        self._client, self._since = client, self._loop.now()

        def connect() -> bool:
            try:
                return bool(client.connect(host, port, keepalive=_KEEPALIVE_S) == _OK)
            except (OSError, ValueError):
                return False

        def done(future: concurrent.futures.Future[bool]) -> None:
            if not future.cancelled():
                self._loop.hand_over(lambda: self._dialled(client, future.result()))

        self._pool.submit(connect).add_done_callback(done)

    def _dialled(self, client: Any, reached: bool) -> None:
        if client is not self._client:
            _drop(client)  # it was hung up meanwhile
        elif not reached:
            self._ended()
        else:
            self._watch()

    def _watch(self) -> None:
        client = self._client
        sock = client.socket() if client is not None else None
        if sock is not None:
            self._loop.watch(sock, self._ready, writing=client.want_write())

    def _ready(self, events: int) -> None:
        client = self._client
        if client is None:
            return
        if events & selectors.EVENT_READ:
            client.loop_read()
            # What TLS has decrypted already, no selector sees.
            while isinstance(sock := client.socket(), ssl.SSLSocket) and sock.pending():
                client.loop_read()
        if client.want_write():
            client.loop_write()
        self._watch()

    def publish(self, kind: Kind, payload: bytes) -> None:
        """Send with QoS 1; nothing happens where there is no connection."""
        if self._up and self._client is not None:
            self._unconfirmed += 1
            self._client.publish(topics.topic(self._target, kind), payload, qos=1)
            self._watch()

    def tend(self) -> None:
        """Every second or so: keep-alive, and an end to waiting for a broker that does not answer."""
        client = self._client
        if client is None:
            return
        if self._up:
            client.loop_misc()
            self._watch()
        elif self._loop.now() - self._since > _PATIENCE_S:
            self.hang_up()
            self._on_end(True)

    def hang_up(self) -> None:
        """End the connection without a word, as a cable does that is pulled out."""
        client, self._client, self._up = self._client, None, False
        sock = client.socket() if client is not None else None
        if sock is not None:
            self._loop.forget(sock)
            _drop(client)

    def close(self) -> None:
        """Say that this is the end, and end."""
        client = self._client
        if client is not None and self._up:
            client.on_disconnect = None
            client.disconnect()
            client.loop_write()
        self.hang_up()

    # paho calls these, in the loop's thread.

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if client is not self._client or reason.is_failure:
            return
        client.subscribe([(topics.topic(self._target, kind), 1) for kind in sorted(topics.TO_DEVICE)])
        self._up, self._unconfirmed = True, 0
        self._on_up()

    def _confirmed(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        if client is self._client:
            self._unconfirmed -= 1

    def _disconnected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if client is self._client:
            self._ended()

    def _ended(self) -> None:
        was, self._up, self._client = self._up, False, None
        self._on_end(not was)

    def _message(self, client: Any, userdata: Any, message: Any) -> None:
        try:
            target, kind = topics.parse(message.topic)
        except (errors.ContractError, UnicodeDecodeError):
            return
        if client is self._client and target == self._target and kind in topics.TO_DEVICE:
            self._on_message(kind, bytes(message.payload))

    def _socket_closed(self, client: Any, userdata: Any, sock: socket.socket) -> None:
        if client is self._client:
            self._loop.forget(sock)


def _drop(client: Any) -> None:
    client.on_disconnect = client.on_socket_close = None
    sock = client.socket()
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


def broker_address(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is meant; raise ConfigError otherwise."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise errors.ConfigError(f"the broker's address must look like mqtt://host:1883, not {url!r}")
    secure = parts.scheme == "mqtts"
    return parts.hostname, parts.port or (8883 if secure else 1883), secure
