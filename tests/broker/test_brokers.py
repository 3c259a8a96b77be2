"""One suite for every broker: what the hub may rely on, whichever is used."""

from __future__ import annotations

import pytest

from edgeflow_agent.wire import topics
from tests.broker import raw
from tests.broker.conftest import Hub, Running, wait_for


@pytest.mark.parametrize("kind", sorted(topics.FROM_DEVICE))
def test_a_message_of_a_device_reaches_the_hub(running: Running, hub: Hub, kind: topics.Kind) -> None:
    payload = bytes(range(256)) * 4
    with running.device("robot-01") as device:
        device.send(raw.publish(topics.topic("robot-01", kind), payload, mid=7))
        assert device.until(4).mid() == 7
        wait_for(lambda: bool(hub.messages), "the message arrives")
    assert hub.messages == [("robot-01", kind, payload)]
    assert not any("asyncio" in name or name == "edgeflow-mqtt" for name in hub.threads)


@pytest.mark.parametrize("kind", sorted(topics.TO_DEVICE))
def test_a_message_of_the_hub_reaches_its_device_only(running: Running, hub: Hub, kind: topics.Kind) -> None:
    one, two = topics.topic("robot-01", kind), topics.topic("robot-02", kind)
    with running.device("robot-01").listen(one) as device, running.device("robot-02").listen(two) as other:
        assert running.broker.publish("robot-01", kind, b"\0binary\xff")
        seen = device.until(3)
        assert seen.message() == (one, b"\0binary\xff")
        assert seen.first & 1 == 0  # not retained
        device.send(raw.packet(0x40, seen.mid().to_bytes(2, "big")))
        assert running.broker.publish("robot-02", kind, b"for two")
        assert other.until(3).message() == (two, b"for two")


def test_messages_of_one_device_stay_in_order_through_a_blocked_hub(running: Running, hub: Hub) -> None:
    hub.gate.clear()
    wanted = [b"%d" % number for number in range(100)]
    with running.device("robot-01") as device, running.device("robot-02") as other:
        for mid, payload in enumerate(wanted, 1):
            device.send(raw.publish("edgeflow/targets/robot-01/telemetry", payload, mid=mid))
            other.send(raw.publish("edgeflow/targets/robot-02/telemetry", payload, mid=mid))
        assert hub.entered.acquire(timeout=10)
        hub.gate.set()
        wait_for(lambda: len(hub.messages) >= 200, "all messages arrive")
    assert hub.payloads("robot-01") == wanted
    assert hub.payloads("robot-02") == wanted


def test_a_failing_handler_stops_nothing(running: Running, hub: Hub) -> None:
    with running.device("robot-01") as device:
        for mid, payload in enumerate([hub.fail_on] * 30 + [b"after"], 1):
            device.send(raw.publish("edgeflow/targets/robot-01/presence", payload, mid=mid))
        wait_for(lambda: hub.payloads("robot-01") == [b"after"], "the message after the failures arrives")


def test_the_largest_message(running: Running, hub: Hub) -> None:
    payload = b"x" * (256 * 1024)
    topic = "edgeflow/targets/robot-01/deploy"
    with running.device("robot-01").listen(topic) as device:
        device.send(raw.publish("edgeflow/targets/robot-01/telemetry", payload))
        wait_for(lambda: hub.payloads("robot-01") == [payload], "the message arrives")
        assert running.broker.publish("robot-01", topics.Kind.DEPLOY, payload)
        assert device.until(3).message() == (topic, payload)


def test_retained_messages_do_not_reach_the_hub(running: Running, hub: Hub) -> None:
    with running.device("robot-01") as device:
        device.send(raw.publish("edgeflow/targets/robot-01/presence", b"kept", retain=True))
        if running.embedded:
            assert device.closed()
    with running.device("robot-02") as device:
        device.send(raw.publish("edgeflow/targets/robot-02/presence", b"plain"))
        wait_for(lambda: hub.payloads("robot-02") == [b"plain"], "the plain message arrives")
    # A broker that keeps it hands it over live once, marked as plain; a hub that comes later must not see it.
    if not running.embedded:
        running.broker.stop()
        hub.messages.clear()
        running.broker.start()
        wait_for(running.broker.healthy, "the link is back")
        with running.device("robot-02") as device:
            device.send(raw.publish("edgeflow/targets/robot-02/presence", b"again"))
            wait_for(lambda: hub.payloads("robot-02") == [b"again"], "the new message arrives")
    assert b"kept" not in hub.payloads("robot-01")


def test_stop_twice_and_start_again(running: Running, hub: Hub) -> None:
    running.broker.stop()
    running.broker.stop()
    assert not running.broker.healthy()
    assert not running.broker.publish("robot-01", topics.Kind.DEPLOY, b"x")
    running.broker.start()
    wait_for(running.broker.healthy, "the broker is healthy again")
    with running.device("robot-01") as device:
        device.send(raw.publish("edgeflow/targets/robot-01/presence", b"hello"))
        wait_for(lambda: hub.payloads("robot-01") == [b"hello"], "the message arrives")


def test_who_is_connected(running: Running, hub: Hub) -> None:
    with running.device("robot-01") as device:
        device.send(raw.packet(0xC0))
        device.until(13)
        assert running.broker.connected() == (frozenset({"robot-01"}) if running.embedded else frozenset())
        assert not running.embedded or ("connect", "robot-01") in hub.events
        if running.embedded:
            assert not running.broker.publish("robot-01", topics.Kind.DEPLOY, b"not subscribed")
            assert not running.broker.publish("robot-02", topics.Kind.DEPLOY, b"not connected")
        running.broker.disconnect("robot-01")
        assert device.closed(2) is running.embedded
    wait_for(lambda: not running.broker.connected(), "nobody is connected")
    if running.embedded:
        wait_for(lambda: len(hub.events) == 2, "both events came")
        assert hub.events == [("connect", "robot-01"), ("disconnect", "robot-01")]


def test_the_address_tells_no_secret(running: Running) -> None:
    assert "@" not in running.broker.address
    assert running.broker.address.startswith(("mqtt://127.0.0.1:", "mqtts://127.0.0.1:"))
