"""Brokers on kernel ports: the embedded one, and a real Mosquitto."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeflow_agent.wire import topics
from edgeflow_mlflow.broker import embedded, link, port
from tests.broker import raw

TARGETS = ("robot-01", "robot-02", "robot-03")


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 15.0) -> None:
    """Poll until true; the message says what did not happen."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"did not happen within {timeout:g} s: {what}")
        time.sleep(0.01)


@dataclass
class Hub:
    """Handlers that remember."""

    messages: list[tuple[str, topics.Kind, bytes]] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    threads: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    fail_on: bytes = b"\xff\xff fail"

    def __post_init__(self) -> None:
        self.gate.set()

    def on_message(self, target: str, kind: topics.Kind, payload: bytes) -> None:
        self.threads.add(threading.current_thread().name)
        self.entered.release()
        self.gate.wait(30)
        if payload == self.fail_on:
            raise RuntimeError("a handler that fails")
        self.messages.append((target, kind, payload))

    def on_connect(self, target: str) -> None:
        self.events.append(("connect", target))

    def on_disconnect(self, target: str) -> None:
        self.events.append(("disconnect", target))

    def authenticate(self, target: str, password: str) -> bool:
        self.asked.append(target)
        return target.startswith("robot-") and password == "right"

    def handlers(self) -> port.Handlers:
        return port.Handlers(
            on_message=self.on_message,
            on_connect=self.on_connect,
            on_disconnect=self.on_disconnect,
            authenticate=self.authenticate,
        )

    def payloads(self, target: str) -> list[bytes]:
        return [payload for name, _, payload in list(self.messages) if name == target]


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.gate.set()


@dataclass
class Tls:
    certfile: str
    keyfile: str


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for 127.0.0.1 that signs itself."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgeflow test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return Tls(str(folder / "cert.pem"), str(folder / "key.pem"))


Start = Callable[..., embedded.EmbeddedBroker]


@pytest.fixture
def start(hub: Hub) -> Iterator[Start]:
    """Start an embedded broker with other limits than the usual ones."""
    started: list[embedded.EmbeddedBroker] = []

    def start(**settings: object) -> embedded.EmbeddedBroker:
        wanted = replace(port.EmbeddedSettings(port=0), **settings)  # type: ignore[arg-type]
        broker = embedded.EmbeddedBroker(wanted, hub.handlers())
        broker.start()
        started.append(broker)
        return broker

    yield start
    hub.gate.set()
    for broker in started:
        broker.stop()


def mosquitto_binary() -> str:
    """The path of Mosquitto; a visible skip when it is missing, which CI turns into a failure."""
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if binary is None and os.environ.get("CI", "").lower() not in {"", "0", "false"}:
        pytest.fail("Mosquitto is not installed, and in CI nothing is skipped: apt-get install mosquitto")
    if binary is None:
        pytest.skip(
            "Mosquitto is not installed (apt-get install mosquitto): the external broker is not tested"
        )
    return binary


class Mosquitto:
    """A real Mosquitto with a password and an access list per device."""

    def __init__(self, folder: Path, tls: Tls | None) -> None:
        self.binary, self.folder, self.tls = mosquitto_binary(), folder, tls
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        passwords = folder / "passwords"
        users = {"hub": "hub p@ss/word", **dict.fromkeys(TARGETS, "right")}
        passwords.write_text("".join(f"{user}:{word}\n" for user, word in users.items()))
        tool = shutil.which("mosquitto_passwd") or "/usr/bin/mosquitto_passwd"
        subprocess.run([tool, "-U", str(passwords)], check=True)
        access = folder / "access"
        rules = ["user hub", "topic readwrite edgeflow/#"]
        rules += [f"pattern write edgeflow/targets/%u/{kind}" for kind in topics.FROM_DEVICE]
        rules += [f"pattern read edgeflow/targets/%u/{kind}" for kind in topics.TO_DEVICE]
        access.write_text("\n".join(rules) + "\n")
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous false",
            f"password_file {passwords}",
            f"acl_file {access}",
            "use_username_as_clientid false",
            "message_size_limit 262656",
            "max_queued_messages 1000",
            # With more it changes the order of what waited behind a full window.
            "max_inflight_messages 1",
            "persistence false",
            f"user {'root' if os.geteuid() == 0 else ''}",
        ]
        if tls is not None:
            lines += [f"certfile {tls.certfile}", f"keyfile {tls.keyfile}"]
        (folder / "mosquitto.conf").write_text("\n".join(line for line in lines if line != "user ") + "\n")
        for path in (passwords, access):
            path.chmod(0o600)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://127.0.0.1:{self.port}"

    @property
    def hub_url(self) -> str:
        return self.url.replace("://", "://hub:hub%20p%40ss%2Fword@")

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [self.binary, "-c", str(self.folder / "mosquitto.conf")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()

        def listening() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(listening, "Mosquitto listens")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    server = Mosquitto(tmp_path, None)
    server.start()
    yield server
    server.stop()


@dataclass
class Running:
    """A started broker of either kind, and how a device reaches it."""

    broker: port.Broker
    cafile: str
    embedded: bool

    def device(self, target: str, **more: object) -> raw.Client:
        return raw.Client(self.broker.address, cafile=self.cafile).log_in(target, **more)  # type: ignore[arg-type]


@pytest.fixture(params=["embedded", "embedded-tls", "external", "external-tls", "external-plain"])
def running(request: pytest.FixtureRequest, hub: Hub, tls: Tls, tmp_path: Path) -> Iterator[Running]:
    """The same suite for every broker."""
    kind, _, variant = request.param.partition("-")
    secure = tls if variant == "tls" else None
    server: Mosquitto | None = None
    broker: port.Broker
    if kind == "embedded":
        files = {"certfile": tls.certfile, "keyfile": tls.keyfile} if secure else {}
        broker = embedded.EmbeddedBroker(port.EmbeddedSettings(port=0, **files), hub.handlers())  # type: ignore[arg-type]
    else:
        server = Mosquitto(tmp_path, secure)
        server.start()
        settings = port.ExternalSettings(
            url=server.hub_url, cafile=secure.certfile if secure else "", shared=variant != "plain"
        )
        broker = link.ExternalBroker(settings, hub.handlers())
    broker.start()
    try:
        wait_for(broker.healthy, "the broker is healthy")
        yield Running(broker=broker, cafile=tls.certfile, embedded=kind == "embedded")
    finally:
        hub.gate.set()
        broker.stop()
        if server is not None:
            server.stop()
