"""The client of an external broker: paho-mqtt, made safe for a hub that blocks, fails and reconnects."""

from __future__ import annotations

import logging
import queue
import random
import secrets
import ssl
import threading
import urllib.parse
from dataclasses import dataclass
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt import enums

from edgeflow_agent import errors as wire_errors
from edgeflow_agent.wire import topics
from edgeflow_mlflow import errors
from edgeflow_mlflow.broker.port import BROKER_SETTING, ExternalSettings, Handlers

logger = logging.getLogger(__name__)

_QUEUED = 200
_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    target: str
    kind: topics.Kind
    payload: bytes
    mid: int
    qos: int
    session: int


class ExternalBroker:
    """Subscribes to what devices say on somebody else's broker, and publishes to them there."""

    def __init__(self, settings: ExternalSettings, handlers: Handlers) -> None:
        self._settings = settings
        self._handlers = handlers
        self._place = _parse(settings.url)
        self._client: Any = None
        self._queues: list[queue.Queue[_Item | None]] = []
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        # Message ids start again with every connection; an ack of an older one must not hit a new message.
        self._session = 0
        self._subscribed = False

    def start(self) -> None:
        """Begin to connect; an unreachable broker is tried again for ever."""
        if self._client is not None:
            raise RuntimeError("the broker link is started already")
        self._stopping.clear()
        client = self._new_client()
        self._queues = [queue.Queue(_QUEUED) for _ in range(self._settings.workers)]
        self._threads = [
            threading.Thread(
                target=self._work, args=(client, item), name=f"edgeflow-mqtt-worker-{index}", daemon=True
            )
            for index, item in enumerate(self._queues)
        ]
        for thread in self._threads:
            thread.start()
        self._client = client
        client.connect_async(self._place.host, self._place.port, keepalive=self._settings.keepalive_s)
        client.loop_start()

    def stop(self) -> None:
        """Disconnect and let the workers finish what they hold."""
        client, self._client = self._client, None
        if client is None:
            return
        self._stopping.set()
        for waiting in self._queues:
            waiting.put(None)
        for thread in self._threads:
            thread.join(10)
        client.disconnect()
        client.loop_stop()

    def publish(self, target: str, kind: topics.Kind, payload: bytes) -> bool:
        """True when the broker is connected and has been handed the message."""
        client = self._client
        if client is None or not client.is_connected():
            return False
        info = client.publish(topics.topic(target, kind), payload, qos=1)
        return bool(info.rc == enums.MQTTErrorCode.MQTT_ERR_SUCCESS)

    def disconnect(self, target: str) -> None:
        """Not ours to do: the broker's own users and passwords decide who is connected."""
        logger.info("an external broker keeps the connection of %s; remove its user there as well", target)

    def connected(self) -> frozenset[str]:
        """Unknown: presence comes from heartbeats alone."""
        return frozenset()

    def healthy(self) -> bool:
        """Whether the broker is connected and has taken the subscriptions."""
        client = self._client
        return client is not None and client.is_connected() and self._subscribed

    @property
    def address(self) -> str:
        """The URL for devices, without this server's own credentials."""
        host = f"[{self._place.host}]" if ":" in self._place.host else self._place.host
        return f"{'mqtts' if self._place.tls else 'mqtt'}://{host}:{self._place.port}"

    def _new_client(self) -> Any:
        client = paho.Client(
            enums.CallbackAPIVersion.VERSION2,
            client_id=f"edgeflow-hub-{secrets.token_hex(6)}",
            clean_session=True,
            protocol=paho.MQTTv311,
            manual_ack=True,
        )
        client.suppress_exceptions = True
        client.max_queued_messages_set(1000)
        if self._place.username is not None:
            client.username_pw_set(self._place.username, self._place.password)
        if self._place.tls:
            try:
                context = ssl.create_default_context(cafile=self._settings.cafile or None)
            except (OSError, ssl.SSLError) as error:
                raise errors.SettingError(
                    f"cannot read the CA file {self._settings.cafile!r}: {error}; "
                    "change ca_file of [mqtt] in edgeflow.toml"
                ) from error
            client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        self._spread(client)
        return client

    def _spread(self, client: Any) -> None:
        """paho doubles its delays without chance; several hubs would come back in step."""
        high = self._settings.max_reconnect_s
        low = min(1.0, high / 4)
        client.reconnect_delay_set(random.uniform(low / 2, low * 2), random.uniform(high / 2, high))  # noqa: S311

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            logger.error(
                "the MQTT broker %s refuses this server: %s; check %s", self.address, reason, BROKER_SETTING
            )
            return
        self._session += 1
        prefix = "$share/edgeflow/" if self._settings.shared else ""
        wanted = [(f"{prefix}edgeflow/targets/+/{kind.value}", 1) for kind in sorted(topics.FROM_DEVICE)]
        client.subscribe(wanted)

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        self._subscribed = not refused
        if refused:
            logger.error(
                "the MQTT broker %s refuses the subscriptions of this server: %s", self.address, refused
            )
        else:
            logger.info("connected to the MQTT broker %s", self.address)

    def _on_connect_fail(self, client: Any, userdata: Any) -> None:
        logger.warning("the MQTT broker %s cannot be reached; trying again", self.address)
        self._spread(client)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._subscribed = False
        if not self._stopping.is_set():
            logger.warning("lost the MQTT broker %s: %s; trying again", self.address, reason)
            self._spread(client)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        """Hand over to the target's worker; while its queue is full nothing more is read."""
        try:
            target, kind = topics.parse(message.topic)
        except (wire_errors.ContractError, UnicodeDecodeError):
            client.ack(message.mid, message.qos)
            return
        if message.retain or kind not in topics.FROM_DEVICE:
            client.ack(message.mid, message.qos)
            return
        item = _Item(
            target=target,
            kind=kind,
            payload=message.payload,
            mid=message.mid,
            qos=message.qos,
            session=self._session,
        )
        # One worker for all messages of a target: they stay in order.
        waiting = self._queues[hash(target) % len(self._queues)]
        while not self._stopping.is_set():
            try:
                waiting.put(item, timeout=0.5)
                return
            except queue.Full:
                continue

    def _work(self, client: Any, waiting: queue.Queue[_Item | None]) -> None:
        while (item := waiting.get()) is not None:
            try:
                self._handlers.on_message(item.target, item.kind, item.payload)
            except Exception:
                # Acked all the same: the device keeps it until the hub says `stored`, and a broker that
                # is never acked stops sending.
                logger.exception("the handler of MQTT messages failed")
            if item.session == self._session:
                client.ack(item.mid, item.qos)


def _parse(url: str) -> _Place:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise errors.SettingError(
            f"the address of the MQTT broker is wrong: {error}; change {BROKER_SETTING}"
        ) from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in {"", "/"} or parts.query:
        raise errors.SettingError(
            "the address of the MQTT broker must look like mqtt://user:password@host:1883 "
            f"or mqtts://user:password@host:8883; change {BROKER_SETTING}"
        )
    return _Place(
        host=parts.hostname,
        port=port,
        tls=parts.scheme == "mqtts",
        username=None if parts.username is None else urllib.parse.unquote(parts.username),
        password=None if parts.password is None else urllib.parse.unquote(parts.password),
    )
