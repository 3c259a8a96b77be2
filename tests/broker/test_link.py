"""The link to an external broker: settings, restarts, refusals."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edgeflow_agent.wire import topics
from edgeflow_mlflow import errors
from edgeflow_mlflow.broker import link, port
from tests.broker import raw
from tests.broker.conftest import Hub, Mosquitto, wait_for


@pytest.mark.parametrize(
    "url",
    [
        "",
        "embedded?",
        "localhost:1883",
        "http://host:1883",
        "mqtt://",
        "mqtt://host:port",
        "mqtt://host:99999",
        "mqtt://host/path",
        "mqtt://user:secret-word@host:1883?x=1",
        "mqtt://user:secret-word@host:x",
        "mqtt://user:secret-word@[::1",
    ],
)
def test_a_wrong_address_names_the_setting_and_no_password(hub: Hub, url: str) -> None:
    with pytest.raises(errors.SettingError, match=r"\[mqtt\] broker") as caught:
        link.ExternalBroker(port.ExternalSettings(url=url), hub.handlers())
    assert "secret-word" not in str(caught.value)
    assert "secret-word" not in repr(port.ExternalSettings(url=url))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker", "mqtt://broker:1883"),
        ("mqtts://broker/", "mqtts://broker:8883"),
        ("mqtts://u:p@broker:99", "mqtts://broker:99"),
        ("mqtt://u:p@[::1]:99", "mqtt://[::1]:99"),
    ],
)
def test_the_address_for_devices(hub: Hub, url: str, address: str) -> None:
    assert link.ExternalBroker(port.ExternalSettings(url=url), hub.handlers()).address == address


def test_a_missing_ca_file_names_the_setting(hub: Hub) -> None:
    settings = port.ExternalSettings(url="mqtts://broker", cafile="/no/such/ca.pem")
    broker = link.ExternalBroker(settings, hub.handlers())
    with pytest.raises(errors.SettingError, match="ca_file"):
        broker.start()
    broker.stop()


def test_a_broker_that_comes_late_goes_and_comes_again(hub: Hub, tmp_path: Path) -> None:
    server = Mosquitto(tmp_path, None)
    broker = link.ExternalBroker(
        port.ExternalSettings(url=server.hub_url, max_reconnect_s=0.5), hub.handlers()
    )
    broker.start()
    try:
        assert not broker.healthy()
        assert not broker.publish("robot-01", topics.Kind.DEPLOY, b"lost")
        for round_ in range(3):
            server.start()
            wait_for(broker.healthy, "the link comes up")
            with raw.Client(server.url).log_in("robot-01") as device:
                device.send(raw.publish("edgeflow/targets/robot-01/presence", b"%d" % round_))
                wait_for(lambda: len(hub.messages) > round_, "the message arrives")  # noqa: B023
            server.stop()
            wait_for(lambda: not broker.healthy(), "the loss is noticed")
    finally:
        broker.stop()
        server.stop()
    assert hub.payloads("robot-01") == [b"0", b"1", b"2"]


def test_a_wrong_password_is_logged_and_tried_again(
    hub: Hub, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    broker = link.ExternalBroker(
        port.ExternalSettings(url=mosquitto.url.replace("://", "://hub:wrong-word@"), max_reconnect_s=0.5),
        hub.handlers(),
    )
    broker.start()
    try:
        wait_for(
            lambda: sum("refuses this server" in item.message for item in caplog.records) >= 2,
            "refused twice",
        )
        assert not broker.healthy()
    finally:
        broker.stop()
    assert "wrong-word" not in caplog.text
    assert "[mqtt] broker" in caplog.text


def test_what_was_not_handled_is_not_acked(hub: Hub, mosquitto: Mosquitto) -> None:
    """The broker keeps at most its own window in flight while the hub is blocked: back-pressure."""
    broker = link.ExternalBroker(port.ExternalSettings(url=mosquitto.hub_url, workers=1), hub.handlers())
    broker.start()
    try:
        wait_for(broker.healthy, "the link comes up")
        hub.gate.clear()
        with raw.Client(mosquitto.url).log_in("robot-01") as device:
            for mid in range(1, 301):
                device.send(raw.publish("edgeflow/targets/robot-01/telemetry", b"%d" % mid, mid=mid))
                device.until(4)
            assert hub.entered.acquire(timeout=10)
            assert broker._queues[0].qsize() <= 20  # Mosquitto's max_inflight_messages
            hub.gate.set()
            wait_for(lambda: len(hub.messages) == 300, "all messages arrive")
    finally:
        broker.stop()
    assert hub.payloads("robot-01") == [b"%d" % mid for mid in range(1, 301)]


def test_two_hubs_share_the_messages(hub: Hub, mosquitto: Mosquitto) -> None:
    second = Hub()
    settings = port.ExternalSettings(url=mosquitto.hub_url)
    brokers = [link.ExternalBroker(replace(settings), item.handlers()) for item in (hub, second)]
    for broker in brokers:
        broker.start()
    try:
        for broker in brokers:
            wait_for(broker.healthy, "the links come up")
        with raw.Client(mosquitto.url).log_in("robot-01") as device:
            for mid in range(1, 101):
                device.send(raw.publish("edgeflow/targets/robot-01/telemetry", b"%d" % mid, mid=mid))
            wait_for(lambda: len(hub.messages) + len(second.messages) >= 100, "all messages arrive")
    finally:
        for broker in brokers:
            broker.stop()
    both = hub.payloads("robot-01") + second.payloads("robot-01")
    assert sorted(both, key=int) == [b"%d" % mid for mid in range(1, 101)]


def test_start_and_stop_leave_no_thread(hub: Hub, mosquitto: Mosquitto) -> None:
    before = threading.active_count()
    for _ in range(5):
        broker = link.ExternalBroker(port.ExternalSettings(url=mosquitto.hub_url), hub.handlers())
        broker.start()
        wait_for(broker.healthy, "the link comes up")
        broker.stop()
        broker.stop()
    assert threading.active_count() == before


def test_foreign_topics_do_not_disturb(hub: Hub, mosquitto: Mosquitto) -> None:
    broker = link.ExternalBroker(port.ExternalSettings(url=mosquitto.hub_url, shared=False), hub.handlers())
    broker.start()
    try:
        wait_for(broker.healthy, "the link comes up")
        with raw.Client(mosquitto.url) as other:
            assert other.answer(raw.connect("anybody", username="hub", password="hub p@ss/word")) == 0
            other.send(raw.publish("edgeflow/targets/NOT A TARGET/presence", b"x", mid=1))
            other.send(raw.publish("edgeflow/targets/robot-01/presence", b"good", mid=2))
            wait_for(lambda: bool(hub.messages), "the good message arrives")
    finally:
        broker.stop()
    assert hub.messages == [("robot-01", topics.Kind.PRESENCE, b"good")]
