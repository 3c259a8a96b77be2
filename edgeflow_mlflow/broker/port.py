"""What the hub asks of a broker, and what it tells a broker at construction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edgeflow_agent.wire import documents, topics

# What every message of a setting says about where to change it.
PORT_SETTING = "[mqtt] port in edgeflow.toml, EDGEFLOW_MQTT_PORT or --mqtt-port"
BROKER_SETTING = "[mqtt] broker in edgeflow.toml, EDGEFLOW_MQTT_BROKER or --mqtt-broker"


class Broker(Protocol):
    """A way to devices. Every method may be called from any thread."""

    def start(self) -> None:
        """Begin; raise SettingError that names the setting when a setting is at fault."""

    def stop(self) -> None:
        """End, and wait for the end; calling it again does nothing."""

    def publish(self, target: str, kind: topics.Kind, payload: bytes) -> bool:
        """Hand a message over without waiting; True when a connected device (external: broker) took it.

        True promises no delivery: what must arrive is sent again at the device's next birth.
        """

    def disconnect(self, target: str) -> None:
        """Close the connection of a target (embedded; an external broker keeps its own credentials)."""

    def connected(self) -> frozenset[str]:
        """Targets with a live connection, as far as this broker knows (external: none)."""

    def healthy(self) -> bool:
        """Whether messages can flow now."""

    @property
    def address(self) -> str:
        """The URL for devices, without credentials."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Handlers:
    """What the hub does with what comes in.

    All four run in worker threads, several at once, never on an event loop; they may block, and the
    device then waits. Messages of one target come one after another, between its `on_connect` and its
    `on_disconnect`. An exception is logged and the message counts as handled: a device keeps what it
    sent until the hub says `stored`. An external broker calls `on_message` only.
    """

    on_message: Callable[[str, topics.Kind, bytes], None]
    on_connect: Callable[[str], None] = field(default=lambda target: None)
    on_disconnect: Callable[[str], None] = field(default=lambda target: None)
    # Nobody may come in unless the hub says who may.
    authenticate: Callable[[str, str], bool] = field(default=lambda target, password: False)


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedSettings:
    """The embedded broker and its limits. Port 0 lets the kernel choose; times in seconds."""

    host: str = "127.0.0.1"
    port: int = 1883
    certfile: str = ""
    keyfile: str = ""
    # They wait for the disk most of the time, and who waits together is committed together.
    workers: int = 64
    logins: int = 8
    max_clients: int = 2000
    max_pending: int = 64
    connect_timeout_s: float = 5.0
    max_connect_bytes: int = 2048
    # The largest document and its topic.
    max_packet_bytes: int = documents.MAX_MESSAGE_BYTES + 512
    min_keepalive_s: int = 5
    max_keepalive_s: int = 300
    messages_per_s: float = 50.0
    message_burst: int = 200
    max_outbound_bytes: int = 2**20
    failures_per_target: int = 5
    failures_per_address: int = 20
    failures_window_s: float = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalSettings:
    """A broker that somebody else runs: `mqtt://` or `mqtts://user:password@host:port`.

    `shared` spreads messages over several hubs (`$share/edgeflow/…`); turn it off for a broker that
    does not know shared subscriptions.
    """

    url: str = field(repr=False)
    cafile: str = ""
    shared: bool = True
    workers: int = 4
    keepalive_s: int = 30
    max_reconnect_s: float = 30.0
