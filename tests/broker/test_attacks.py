"""The embedded broker under attack: what amqtt alone lets through, raw bytes against the gate."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from asyncio import sslproto
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeflow_agent.wire import topics
from edgeflow_mlflow import errors
from edgeflow_mlflow.broker import embedded, port
from tests.broker import raw
from tests.broker.conftest import Hub, Start, Tls, wait_for

DEPLOY = "edgeflow/targets/robot-01/deploy"
PRESENCE = "edgeflow/targets/robot-01/presence"
CREDENTIALS, FORBIDDEN, UNAVAILABLE, IDENTIFIER, PROTOCOL = 4, 5, 3, 2, 1


def good(target: str = "robot-01", **more: object) -> bytes:
    return raw.connect(target, **{"username": target, "password": "right", **more})  # type: ignore[arg-type]


def still_served(broker: port.Broker, device: raw.Client, payload: bytes = b"still here") -> None:
    assert broker.publish("robot-01", topics.Kind.DEPLOY, payload)
    seen = device.until(3)
    assert seen.message() == (DEPLOY, payload)
    device.send(raw.packet(0x40, seen.mid().to_bytes(2, "big")))


def alive(broker: port.Broker, hub: Hub, target: str = "robot-03") -> None:
    with raw.Client(broker.address).log_in(target) as device:
        device.send(raw.publish(f"edgeflow/targets/{target}/presence", b"alive"))
        assert device.until(4).mid() == 1
    assert hub.payloads(target)[-1] == b"alive"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (raw.connect("robot-01"), CREDENTIALS),
        (raw.connect("robot-01", username="robot-01"), CREDENTIALS),
        (good(password="wrong"), CREDENTIALS),
        (good(password=""), CREDENTIALS),
        (good(password="wrong", clean=False), FORBIDDEN),
        (good(clean=False), FORBIDDEN),
        (good(will=("edgeflow/targets/robot-02/deploy", b"evil")), FORBIDDEN),
        (good(will=(PRESENCE, b"gone")), FORBIDDEN),
        (good(username="robot-02"), FORBIDDEN),
        (good(keepalive=0), FORBIDDEN),
        (good(keepalive=4), FORBIDDEN),
        (good(keepalive=301), FORBIDDEN),
        (good(keepalive=65535), FORBIDDEN),
        (good("Robot"), IDENTIFIER),
        (good(""), IDENTIFIER),
        (good("robot-01/#"), IDENTIFIER),
        (good("+"), IDENTIFIER),
        (good("x" * 64), IDENTIFIER),
        (good(level=3), None),
        (good(level=5), 0x84),
        (raw.packet(0x10, raw.text("MQIsdp") + b"\3\2\0\12" + raw.text("robot-01")), PROTOCOL),
    ],
)
def test_a_refused_connect_does_not_touch_the_live_session(
    start: Start, hub: Hub, wrong: bytes, code: int | None
) -> None:
    broker = start()
    with raw.Client(broker.address).log_in("robot-01").listen(DEPLOY) as victim:
        for _ in range(3):
            with raw.Client(broker.address) as attacker:
                if code is None:
                    attacker.send(wrong)
                else:
                    assert attacker.answer(wrong) == code
                assert attacker.closed()
        still_served(broker, victim)
        assert broker.connected() == {"robot-01"}
    assert hub.events[:1] == [("connect", "robot-01")]
    assert hub.events.count(("connect", "robot-01")) == 1


def test_keepalive_bounds_are_taken(start: Start) -> None:
    broker = start()
    for keepalive in (5, 300):
        with raw.Client(broker.address) as device:
            assert device.answer(good(keepalive=keepalive)) == 0


def test_a_wrong_password_in_a_hundred_tries_costs_no_more_than_the_limit(start: Start, hub: Hub) -> None:
    broker = start()
    with raw.Client(broker.address).log_in("robot-01").listen(DEPLOY) as victim:
        hub.asked.clear()
        codes = []
        for number in range(100):
            with raw.Client(broker.address) as attacker:
                codes.append(attacker.answer(good(f"robot-{number % 10 + 10}", password="guess")))
        assert codes[:20] == [CREDENTIALS] * 20
        assert codes[-50:] == [UNAVAILABLE] * 50
        assert len(hub.asked) <= 20
        still_served(broker, victim)
        # The device that was here before comes back all the same, from the very same address.
        with raw.Client(broker.address).log_in("robot-01").listen(DEPLOY) as again:
            still_served(broker, again)


def test_authenticate_that_fails_lets_nobody_in(hub: Hub) -> None:
    def broken(target: str, password: str) -> bool:
        raise RuntimeError("the database is away")

    broker = embedded.EmbeddedBroker(
        port.EmbeddedSettings(port=0), port.Handlers(on_message=hub.on_message, authenticate=broken)
    )
    broker.start()
    try:
        with raw.Client(broker.address) as device:
            assert device.answer(good()) == UNAVAILABLE
            assert device.closed()
    finally:
        broker.stop()


def test_without_an_authenticate_handler_nobody_comes_in(hub: Hub) -> None:
    broker = embedded.EmbeddedBroker(port.EmbeddedSettings(port=0), port.Handlers(on_message=hub.on_message))
    broker.start()
    try:
        with raw.Client(broker.address) as device:
            assert device.answer(good()) == CREDENTIALS
    finally:
        broker.stop()


@pytest.mark.parametrize(
    "evil",
    [
        raw.publish("edgeflow/targets/robot-02/telemetry", b"spoof"),
        raw.publish("edgeflow/targets/robot-02/deploy", b"spoof"),
        raw.publish(DEPLOY, b"to itself"),
        raw.publish("edgeflow/targets/robot-01/stored"),
        raw.publish("edgeflow/targets/robot-01/telemetry/more"),
        raw.publish("edgeflow/targets/robot-01"),
        raw.publish("edgeflow/targets/+/telemetry"),
        raw.publish("edgeflow/targets/robot-01/#"),
        raw.publish("#"),
        raw.publish(""),
        raw.publish("$SYS/broker"),
        raw.publish("$share/edgeflow/" + PRESENCE),
        raw.publish(PRESENCE + "\0"),
        raw.publish(PRESENCE, retain=True),
        raw.publish(PRESENCE, qos=0, retain=True),
        raw.publish(PRESENCE, qos=2),
        raw.publish(PRESENCE, mid=0),
        raw.packet(0x36, raw.text(PRESENCE) + b"\0\1x"),  # QoS 3
        raw.packet(0x38, raw.text(PRESENCE) + b"x"),  # QoS 0 marked as a repeat
        raw.packet(0x32, raw.text(b"\xff\xfe") + b"\0\1x"),  # no UTF-8
        raw.packet(0x32, b"\0"),
        raw.packet(0x32, raw.text(PRESENCE) + b"\0"),
        raw.packet(0x32, b"\xff\xff" + PRESENCE.encode()),
        raw.subscribe("edgeflow/targets/robot-02/deploy"),
        raw.subscribe("edgeflow/targets/+/deploy"),
        raw.subscribe("edgeflow/targets/robot-01/#"),
        raw.subscribe("edgeflow/targets/robot-01/+"),
        raw.subscribe("#"),
        raw.subscribe("+/#"),
        raw.subscribe("$SYS/#"),
        raw.subscribe("$share/edgeflow/edgeflow/targets/+/deploy"),
        raw.subscribe(PRESENCE),
        raw.subscribe(DEPLOY, "#"),
        raw.subscribe(),
        raw.subscribe(DEPLOY, mid=0),
        raw.subscribe(DEPLOY, qos=3),
        raw.packet(0x80, b"\0\1" + raw.text(DEPLOY) + b"\1"),  # wrong flags
        raw.packet(0xA2, b"\0\1" + raw.text("edgeflow/targets/robot-02/deploy")),
        raw.packet(0xA2, b"\0\1"),
        raw.packet(0x00),
        raw.packet(0xF0),
        raw.packet(0x20, b"\0\0"),
        raw.packet(0x90, b"\0\1\0"),
        raw.packet(0xD0),
        raw.packet(0x50, b"\0\1"),
        raw.packet(0x62, b"\0\1"),
        raw.packet(0x70, b"\0\1"),
        raw.packet(0xC0, b"more"),
        raw.packet(0xC1),
        raw.packet(0xE0, b"\0"),
        raw.packet(0x40, b"\0"),
        raw.packet(0x40, b"\0\0"),
        raw.packet(0x40, b"\0\1\2"),
        b"\x30\xff\xff\xff\xff\x01",
        b"\x30\xff\xff\xff\x7f",
        good(),  # a second CONNECT
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_no_device_may_send_ends_its_connection_and_nothing_else(
    start: Start, hub: Hub, evil: bytes
) -> None:
    broker = start()
    with raw.Client(broker.address).log_in("robot-02").listen("edgeflow/targets/robot-02/deploy") as other:
        with raw.Client(broker.address).log_in("robot-01") as attacker:
            attacker.send(evil + raw.publish(PRESENCE, b"after", mid=9))
            assert attacker.closed(), "the connection stayed open"
        wait_for(lambda: ("disconnect", "robot-01") in hub.events, "the end is reported")
        wait_for(lambda: broker.connected() == {"robot-02"}, "only the other one is connected")
        assert hub.messages == []
        assert broker.publish("robot-02", topics.Kind.DEPLOY, b"only mine")
        assert other.until(3).message()[1] == b"only mine"
    alive(broker, hub)


@pytest.mark.parametrize(
    "evil",
    [
        b"\x00",
        b"\x30\x05",
        b"\xc0\x00",
        b"GET / HTTP/1.1\r\n",
        b"\x10\xff\xff\xff\x7f",
        b"\x10\x81\x10" + b"x" * 2049,
        b"\x11\x00",
        raw.packet(0x10),
        raw.packet(0x10, raw.text("MQTT")),
        raw.packet(0x10, raw.text("HTTP") + b"\4\2\0\12" + raw.text("robot-01")),
        good(flags=1),
        good(flags=0x08),
        good(flags=0x20),
        good(will=("a", b"b"), flags=0x18),
        raw.connect("robot-01", password="right"),
        good()[:-3],
        raw.packet(0x10, good()[2:] + b"more"),
        raw.connect("robot-01", username="a\0b", password="right"),
    ],
)
def test_a_malformed_connect_is_closed_without_reaching_the_hub(start: Start, hub: Hub, evil: bytes) -> None:
    broker = start(connect_timeout_s=0.5)
    with raw.Client(broker.address) as attacker:
        attacker.send(evil)
        assert attacker.closed()
    assert hub.asked == []
    alive(broker, hub)


def test_a_connect_of_2048_bytes_is_read_and_one_more_is_not(start: Start, hub: Hub) -> None:
    broker = start(max_connect_bytes=2048)
    for extra, asked in ((0, 1), (1, 0), (2048 * 20, 0)):
        hub.asked.clear()
        password = "x" * (2048 - len(good(password="")) + 2 + extra)
        data = good(password=password)
        assert len(data) == (3 if len(data) < 16384 else 4) + 2048 + extra
        with raw.Client(broker.address) as attacker:
            attacker.send(data)
            assert attacker.closed()
        assert len(hub.asked) == asked


def test_nothing_retained_reaches_anybody(start: Start, hub: Hub) -> None:
    broker = start()
    with raw.Client(broker.address).log_in("robot-01").listen(DEPLOY) as one:
        assert broker.publish("robot-01", topics.Kind.DEPLOY, b"secret of one")
        one.until(3)
        with raw.Client(broker.address).log_in("robot-02") as two:
            two.send(raw.packet(0xC0))
            assert two.receive().type == 13  # its PINGRESP, and nothing before it
            two.listen("edgeflow/targets/robot-02/deploy")
            two.send(raw.packet(0xC0))
            assert two.receive().type == 13
    with raw.Client(broker.address).log_in("robot-01").listen(DEPLOY) as one:
        one.send(raw.packet(0xC0))
        assert one.receive().type == 13  # nothing was kept for it either


def test_idle_sockets_do_not_keep_a_device_out(start: Start, hub: Hub) -> None:
    broker = start(connect_timeout_s=3.0, max_pending=8)
    idle = [raw.Client(broker.address) for _ in range(20)]
    half = [raw.Client(broker.address) for _ in range(4)]
    for client in half:
        client.send(good()[:-1])
    try:
        begin = time.monotonic()
        alive(broker, hub)
        assert time.monotonic() - begin < 8
        for client in (*idle, *half):
            assert client.closed()
    finally:
        for client in (*idle, *half):
            client.socket.close()
    alive(broker, hub)


def test_idle_sockets_on_the_tls_port_do_not_keep_a_device_out(start: Start, hub: Hub, tls: Tls) -> None:
    broker = start(connect_timeout_s=2.0, max_pending=8, certfile=tls.certfile, keyfile=tls.keyfile)
    plain = broker.address.replace("mqtts://", "mqtt://")
    idle = [raw.Client(plain) for _ in range(20)]
    try:
        with raw.Client(broker.address, cafile=tls.certfile).log_in("robot-01") as device:
            device.send(raw.packet(0xC0))
            assert device.until(13)
        for client in idle:
            assert client.closed()
        with raw.Client(plain) as client:  # MQTT without TLS
            client.send(good())
            assert client.closed()
    finally:
        for client in idle:
            client.socket.close()
    assert hub.asked == ["robot-01"]


def test_a_tls_connection_keeps_no_large_buffer(start: Start, tls: Tls) -> None:
    start(certfile=tls.certfile, keyfile=tls.keyfile)
    # A private name of asyncio: when it goes, a TLS connection costs 256 KiB again.
    assert sslproto.SSLProtocol.max_size == 16 * 1024


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_hang_nothing(start_once: port.Broker, hub: Hub, data: bytes, inside: bool) -> None:
    with raw.Client(start_once.address) as attacker:
        if inside:
            attacker.log_in("robot-01")
        with contextlib.suppress(OSError):
            attacker.send(data)
    with raw.Client(start_once.address).log_in("robot-02") as device:
        device.send(raw.packet(0xC0))
        assert device.until(13)


@pytest.fixture
def start_once(start: Start) -> port.Broker:
    return start(connect_timeout_s=0.5)


def test_a_publish_of_200_mb_costs_no_memory(start: Start, hub: Hub) -> None:
    broker = start()
    process = psutil.Process()
    with raw.Client(broker.address).log_in("robot-01") as attacker:
        before = process.memory_info().rss
        size = 200 * 2**20
        sent = 0
        head = raw.packet(0x32, raw.text(PRESENCE) + b"\0\1", length=size)
        try:
            attacker.send(head)
            chunk = b"x" * 2**20
            while sent < size:
                attacker.send(chunk)
                sent += len(chunk)
        except OSError:
            pass
        assert attacker.closed()
        assert sent < size / 4
        assert process.memory_info().rss - before < 16 * 2**20
    assert hub.messages == []
    alive(broker, hub)


def test_the_limit_of_a_packet(start: Start, hub: Hub) -> None:
    broker = start(max_packet_bytes=1000)
    for extra, taken in ((0, True), (1, False), (1000_000, False)):
        payload = b"x" * (1000 - 4 - len(PRESENCE) + extra)
        with raw.Client(broker.address).log_in("robot-01") as device:
            try:
                device.send(raw.publish(PRESENCE, payload))
            except OSError:
                assert not taken
            if taken:
                assert device.until(4).mid() == 1
            else:
                assert device.closed()
    assert len(hub.messages) == 1


def test_a_silent_device_is_closed_after_one_and_a_half_keepalives(start: Start, hub: Hub) -> None:
    broker = start(min_keepalive_s=1)
    with (
        raw.Client(broker.address).log_in("robot-01", keepalive=1) as silent,
        raw.Client(broker.address).log_in("robot-02", keepalive=1) as polite,
    ):
        begin = time.monotonic()
        # Bytes that never become a packet are no sign of life.
        silent.send(b"\x32")
        closed = threading.Event()

        def watch() -> None:
            if silent.closed(10):
                closed.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        while not closed.wait(0.3):
            assert time.monotonic() - begin < 8
            polite.send(raw.packet(0xC0))
            assert polite.until(13)
        watcher.join()
        assert 1.3 < time.monotonic() - begin < 4
        assert broker.connected() == {"robot-02"}


def test_a_blocked_hub_stops_the_reading_of_that_device_only(start: Start, hub: Hub) -> None:
    broker = start(min_keepalive_s=1, workers=2, messages_per_s=1e9, message_burst=10**9)
    process = psutil.Process()
    payload = b"x" * 100_000
    with raw.Client(broker.address).log_in("robot-01", keepalive=1) as device:
        hub.gate.clear()
        before = process.memory_info().rss
        device.socket.settimeout(1.0)
        sent = 0
        with pytest.raises(TimeoutError):  # the kernel's buffers are full: nothing more is read
            for mid in range(1, 2000):
                device.send(raw.publish(PRESENCE, payload, mid=mid))
                sent += 1
        assert sent * len(payload) < 30 * 2**20
        assert process.memory_info().rss - before < 16 * 2**20
        assert "robot-01" in broker.connected()  # waiting for the hub is no silence of the device
        with pytest.raises(TimeoutError):
            device.receive(0.2)  # and no PUBACK for what is not stored
        hub.gate.set()
        device.socket.settimeout(10)
        assert device.until(4).mid() == 1
    alive(broker, hub)


def test_a_flood_is_slowed_down_to_the_rate(start: Start, hub: Hub) -> None:
    broker = start(messages_per_s=100.0, message_burst=20)
    with raw.Client(broker.address).log_in("robot-01") as device:
        begin = time.monotonic()
        device.send(b"".join(raw.publish(PRESENCE, b"%d" % mid, mid=mid) for mid in range(1, 121)))
        for _ in range(120):
            device.until(4)
        assert 0.9 < time.monotonic() - begin < 5
    assert hub.payloads("robot-01") == [b"%d" % mid for mid in range(1, 121)]


def test_pubacks_for_nothing_are_swallowed(start: Start, hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    broker = start(message_burst=2000)
    with raw.Client(broker.address).log_in("robot-01").listen(DEPLOY) as device:
        device.send(raw.packet(0x40, b"\0\7") * 1000)
        still_served(broker, device)
        still_served(broker, device, b"twice")
    assert not [record for record in caplog.records if record.name.startswith("amqtt")]


def test_a_device_that_does_not_read_is_closed(start: Start, hub: Hub) -> None:
    broker = start(max_outbound_bytes=2**20)
    process = psutil.Process()
    with raw.Client(broker.address).log_in("robot-01").listen(DEPLOY):
        before = process.memory_info().rss
        sent = 0
        deadline = time.monotonic() + 10
        while broker.publish("robot-01", topics.Kind.DEPLOY, b"x" * 60_000) and time.monotonic() < deadline:
            sent += 1
        assert time.monotonic() < deadline
        wait_for(lambda: not broker.connected(), "the slow device is closed")
        assert sent <= 20
        assert process.memory_info().rss - before < 16 * 2**20
    alive(broker, hub)


def test_a_second_connection_with_the_right_password_takes_the_place(start: Start, hub: Hub) -> None:
    broker = start()
    with raw.Client(broker.address).log_in("robot-01").listen(DEPLOY) as first:
        for round_ in range(20):
            second = raw.Client(broker.address).log_in("robot-01").listen(DEPLOY)
            assert first.closed(5)
            still_served(broker, second, b"%d" % round_)
            first.socket.close()
            first = second
        assert broker.connected() == {"robot-01"}
        first.socket.close()
    wait_for(lambda: len(hub.events) == 42, "every begin has its end")
    assert hub.events == [("connect", "robot-01"), ("disconnect", "robot-01")] * 21


def test_the_message_in_hand_is_stored_when_the_device_comes_again(start: Start, hub: Hub) -> None:
    broker = start()
    hub.gate.clear()
    with raw.Client(broker.address).log_in("robot-01") as first:
        first.send(raw.publish(PRESENCE, b"in hand"))
        assert hub.entered.acquire(timeout=10)
        with raw.Client(broker.address) as second:
            second.send(good())
            assert first.closed(5)
            hub.gate.set()
            answer = second.receive()
            assert answer.body == b"\0\0"
    assert hub.payloads("robot-01") == [b"in hand"]
    wait_for(lambda: len(hub.events) == 4, "all events came")
    assert [event for event, _ in hub.events] == ["connect", "disconnect"] * 2


def test_many_connections_of_one_target_at_once_leave_one(start: Start, hub: Hub) -> None:
    broker = start()
    clients = [raw.Client(broker.address) for _ in range(30)]
    for client in clients:
        client.send(good())
    wait_for(
        lambda: (
            hub.events.count(("connect", "robot-01")) - hub.events.count(("disconnect", "robot-01")) == 1
            and hub.events.count(("connect", "robot-01")) == 30
        ),
        "one is left",
    )
    assert broker.connected() == {"robot-01"}
    for client in clients:
        client.socket.close()
    wait_for(lambda: not broker.connected(), "nobody is left")


def test_more_devices_than_the_limit(start: Start, hub: Hub) -> None:
    broker = start(max_clients=3)
    clients = [raw.Client(broker.address).log_in(f"robot-{number}") for number in range(3)]
    with raw.Client(broker.address) as surplus:
        assert surplus.answer(good("robot-9")) == UNAVAILABLE
        assert surplus.closed()
    with raw.Client(broker.address).log_in("robot-0"):  # a device that is in may come again
        assert clients[0].closed(5)
    wait_for(lambda: len(broker.connected()) == 2, "a place is free")
    with raw.Client(broker.address).log_in("robot-9"):
        pass
    for client in clients:
        client.socket.close()


def test_a_cut_cable_is_noticed_and_nothing_piles_up(start: Start, hub: Hub) -> None:
    broker = start()
    process = psutil.Process()
    for _ in range(5):
        raw.Client(broker.address).log_in("robot-01").listen(DEPLOY).socket.close()
    wait_for(lambda: not broker.connected(), "the end is noticed")
    before, files = process.memory_info().rss, process.num_fds()
    for _ in range(300):
        client = raw.Client(broker.address).log_in("robot-01").listen(DEPLOY)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.close()  # a reset, no DISCONNECT
    wait_for(lambda: not broker.connected(), "the end is noticed")
    wait_for(lambda: process.num_fds() <= files + 2, "the sockets are closed")
    assert process.memory_info().rss - before < 8 * 2**20


def test_two_thousand_failed_logins_cost_no_memory(start: Start, hub: Hub) -> None:
    broker = start(failures_per_address=10**6, failures_per_target=10**6)
    process = psutil.Process()

    def attack(count: int) -> None:
        for _ in range(count):
            with raw.Client(broker.address) as attacker:
                assert attacker.answer(good(password="wrong")) == CREDENTIALS

    attack(100)
    before = process.memory_info().rss
    attack(2000)
    assert process.memory_info().rss - before < 8 * 2**20


def test_a_taken_port_names_the_setting(start: Start, hub: Hub) -> None:
    broker = start()
    taken = int(broker.address.rsplit(":", 1)[1])
    second = embedded.EmbeddedBroker(port.EmbeddedSettings(port=taken), hub.handlers())
    with pytest.raises(errors.SettingError, match=r"\[mqtt\] port .*EDGEFLOW_MQTT_PORT or --mqtt-port"):
        second.start()
    second.stop()
    alive(broker, hub)


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "192.0.2.1"},
        {"host": "no.such.host.invalid"},
        {"port": 70000},
        {"certfile": "/no/such", "keyfile": "/no"},
    ],
)
def test_settings_that_cannot_work_are_named(hub: Hub, wrong: dict[str, object]) -> None:
    broker = embedded.EmbeddedBroker(port.EmbeddedSettings(**wrong), hub.handlers())  # type: ignore[arg-type]
    with pytest.raises(errors.SettingError, match=r"\[mqtt\]"):
        broker.start()
    assert not broker.healthy()


def test_thirty_starts_and_stops_leave_nothing(hub: Hub) -> None:
    process = psutil.Process()
    before = (0, 0)
    for cycle in range(30):
        broker = embedded.EmbeddedBroker(port.EmbeddedSettings(port=0), hub.handlers())
        broker.start()
        with raw.Client(broker.address).log_in("robot-01").listen(DEPLOY) as device:
            broker.stop()
            assert device.closed()
        if cycle == 4:
            before = (process.num_fds(), threading.active_count())
    wait_for(lambda: process.num_fds() <= before[0], "no file descriptor is left")
    wait_for(lambda: threading.active_count() <= before[1], "no thread is left")
    assert hub.events == [("connect", "robot-01"), ("disconnect", "robot-01")] * 30


def test_stop_while_devices_connect(hub: Hub) -> None:
    broker = embedded.EmbeddedBroker(port.EmbeddedSettings(port=0), hub.handlers())
    broker.start()
    done = threading.Event()

    def knock(number: int) -> None:
        while not done.is_set():
            try:
                with raw.Client(broker.address, timeout=2) as device:
                    device.send(good(f"robot-{number}"))
                    device.receive(2)
            except (OSError, EOFError):
                pass

    threads = [threading.Thread(target=knock, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(hub.events) > 20, "devices come and go")
    begin = time.monotonic()
    broker.stop()
    assert time.monotonic() - begin < 8
    done.set()
    for thread in threads:
        thread.join()
    begun, ended = (sum(kind == word for kind, _ in hub.events) for word in ("connect", "disconnect"))
    assert begun == ended


def test_the_sources_know_amqtt_in_one_place() -> None:
    folder = Path(embedded.__file__).parent
    users = {
        path.name
        for path in folder.glob("*.py")
        if "import amqtt" in path.read_text() or "from amqtt" in path.read_text()
    }
    assert users == {"engine.py"}
