"""The MQTT side: a thin layer over paho that never lets an exception into paho's thread.

The queue of reports is the spool on disk; paho is handed only a few messages at a time.
"""

from __future__ import annotations

import logging
import threading
import urllib.parse
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt import enums as paho_enums

from edgeflow_agent import errors
from edgeflow_agent.link import http as link_http
from edgeflow_agent.wire import documents, topics

logger = logging.getLogger(__name__)

KEEPALIVE_S = 30
MAX_UNACKED = 20
_MAX_RECONNECT_S = 60


class MqttLink:
    """One connection to the broker, kept up in paho's thread from `start` to `stop`.

    `on_connect` is called after every successful connect and `on_message` for every message to this
    device; both run in paho's thread and must not block.
    """

    def __init__(
        self,
        url: str,
        *,
        target: str,
        credential: str,
        on_connect: Callable[[], None],
        on_disconnect: Callable[[], None],
        on_message: Callable[[topics.Kind, bytes], None],
        reconnect_min_s: float,
        ca_file: str = "",
    ) -> None:
        host, port, secure = parse_url(url)
        self.url = url
        self.credential = credential
        self.session = 0  # how often this link has connected
        self._target = target
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._on_message = on_message
        self._connected = threading.Event()
        self._unacked: set[int] = set()
        self._lock = threading.Lock()
        self._last_failure = ""
        client = paho.Client(
            paho_enums.CallbackAPIVersion.VERSION2,
            client_id=target,
            clean_session=True,
            protocol=paho_enums.MQTTProtocolVersion.MQTTv311,
        )
        client.username_pw_set(target, credential)
        if secure:
            client.tls_set_context(link_http.ssl_context(ca_file))
        # Drawn by the caller, so that a fleet does not come back in the same second.
        client.reconnect_delay_set(
            min_delay=max(1, round(reconnect_min_s)), max_delay=max(_MAX_RECONNECT_S, round(reconnect_min_s))
        )
        client.on_connect = self._connect_done
        client.on_connect_fail = self._connect_failed
        client.on_disconnect = self._disconnect_done
        client.on_message = self._message
        client.on_publish = self._publish_done
        client.connect_timeout = 10
        self._client = client
        self._address = (host, port)

    @property
    def connected(self) -> bool:
        """Whether messages would go out now."""
        return self._connected.is_set()

    def start(self) -> None:
        """Connect, and keep connecting, in the background."""
        self._client.connect_async(*self._address, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnect cleanly and end paho's thread."""
        self._client.disconnect()
        self._client.loop_stop()
        self._connected.clear()

    def room(self) -> int:
        """How many more messages paho may be handed now."""
        with self._lock:
            return MAX_UNACKED - len(self._unacked) if self.connected else 0

    def publish(self, kind: topics.Kind, payload: bytes, *, wait_s: float = 0.0) -> bool:
        """Hand a message to paho with QoS 1; False when there is no connection."""
        if not self.connected:
            return False
        info = self._client.publish(topics.topic(self._target, kind), payload, qos=1)
        if info.rc != paho_enums.MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        with self._lock:
            if not info.is_published():
                self._unacked.add(info.mid)
        if wait_s:
            try:
                info.wait_for_publish(wait_s)
            except (ValueError, RuntimeError):
                return False
        return True

    # paho's thread.

    def _connect_done(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._note_failure(f"the broker at {self.url} refuses this device: {reason}")
            return
        for kind in (topics.Kind.DEPLOY, topics.Kind.STORED, topics.Kind.RPC_REQUEST):
            client.subscribe(topics.topic(self._target, kind), qos=1)
        with self._lock:
            self._unacked.clear()
        self._last_failure = ""
        logger.info("connected to the broker at %s", self.url)
        self.session += 1
        self._connected.set()
        self._guard(self._on_connect)

    def _connect_failed(self, client: Any, userdata: Any) -> None:
        self._note_failure(f"cannot reach the broker at {self.url}; polling over HTTP meanwhile")

    def _disconnect_done(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        was = self._connected.is_set()
        self._connected.clear()
        with self._lock:
            self._unacked.clear()
        if was:
            logger.info("disconnected from the broker: %s", reason)
            self._guard(self._on_disconnect)

    def _publish_done(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._lock:
            self._unacked.discard(mid)

    def _message(self, client: Any, userdata: Any, message: Any) -> None:
        try:
            target, kind = topics.parse(message.topic)
        except (errors.ContractError, UnicodeDecodeError) as error:
            logger.warning("ignored a message: %s", error)
            return
        payload = bytes(message.payload)
        if target != self._target or kind not in topics.TO_DEVICE:
            logger.warning("ignored a message on %s", message.topic)
        elif len(payload) > documents.MAX_MESSAGE_BYTES:
            logger.warning("ignored a message of %d bytes on %s", len(payload), message.topic)
        else:
            self._guard(lambda: self._on_message(kind, payload))

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            # An exception here would end paho's thread and with it the connection, for good.
            logger.exception("handling a message of the broker failed")

    def _note_failure(self, text: str) -> None:
        if text != self._last_failure:
            self._last_failure = text
            logger.warning("%s", text)


def parse_url(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is meant; raise ConfigError otherwise."""
    parts = urllib.parse.urlsplit(url)
    secure = parts.scheme == "mqtts"
    try:
        port = parts.port or (8883 if secure else 1883)
    except ValueError as error:
        raise errors.ConfigError(f"the broker's address {url!r} has no valid port") from error
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise errors.ConfigError(f"the broker's address must look like mqtt://host:1883, not {url!r}")
    return parts.hostname, port, secure
