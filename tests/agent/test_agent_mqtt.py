"""The agent on a real MQTT broker (amqtt, open to all): documents, reports, presence, questions."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from amqtt.broker import Broker
from conftest import enrol, linear, request, settings, wait_for
from paho.mqtt import client as paho
from paho.mqtt import enums as paho_enums

from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire import documents, topics
from edgeflow_agent.wire.documents import Presence, Report, RpcRequest, RpcResponse, Stored
from edgeflow_agent.wire.topics import Kind


class BrokerThread:
    """amqtt on one port, to be stopped and started again."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.start()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def start(self) -> None:
        async def begin() -> Broker:
            broker = Broker(
                {
                    "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
                    "plugins": {
                        "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
                    },
                }
            )
            await broker.start()
            return broker

        self.broker = self._run(begin())

    def stop(self) -> None:
        self._run(self.broker.shutdown())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    thread = BrokerThread()
    yield thread
    try:
        thread.stop()
    finally:
        thread.close()


class Hub:
    """The server's side of MQTT: answers a birth with the document, confirms reports."""

    def __init__(self, server: FakeServer, broker: BrokerThread) -> None:
        self.server = server
        self.stores = True
        self.presence: list[Presence] = []
        self.answers: list[RpcResponse] = []
        self.kinds: list[tuple[Kind, str]] = []
        self.client = paho.Client(paho_enums.CallbackAPIVersion.VERSION2, client_id="hub")
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("edgeflow/targets/#", 1)
        self.client.on_message = self._message
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        wait_for(self.client.is_connected)

    def publish(self, kind: Kind, payload: bytes) -> None:
        self.client.publish(topics.topic(self.server.target, kind), payload, qos=1)

    def _message(self, client: Any, userdata: Any, message: Any) -> None:
        _, kind = topics.parse(message.topic)
        if kind is Kind.PRESENCE:
            self.presence.append(documents.decode(Presence, message.payload))
            if self.presence[-1].kind == "birth" and self.server.envelope:
                self.publish(Kind.DEPLOY, self.server.envelope)
        elif kind in (Kind.ACK, Kind.STATUS):
            report = documents.decode(Report, message.payload)
            self.kinds.append((kind, report.state.value))
            if self.stores:
                self.server.store(report)
                self.publish(Kind.STORED, documents.encode(Stored(boot=report.boot, seqs=(report.seq,))))
        elif kind is Kind.RPC_RESPONSE:
            self.answers.append(documents.decode(RpcResponse, message.payload))

    def ask(self, method: str, body: Any = None) -> RpcResponse:
        self.publish(
            Kind.RPC_REQUEST,
            documents.encode(
                RpcRequest(
                    id=f"q{len(self.answers)}", method=method, body=msgspec.Raw(msgspec.json.encode(body))
                )
            ),
        )
        before = len(self.answers)
        wait_for(lambda: len(self.answers) > before, what=f"an answer to {method}")
        return self.answers[-1]

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def hub(server: FakeServer, broker: BrokerThread) -> Iterator[Hub]:
    server.mqtt = broker.url
    server.poll_s = 0.2
    hub = Hub(server, broker)
    yield hub
    hub.stop()


@pytest.fixture
def agent(server: FakeServer, hub: Hub, tmp_path: Path) -> Iterator[Agent]:
    enrol(server, tmp_path / "state")
    agent = Agent(settings(tmp_path / "state", server))
    agent.start()
    wait_for(lambda: hub.presence, what="the birth")
    yield agent
    agent.stop()


def test_documents_reports_and_questions(server: FakeServer, hub: Hub, agent: Agent) -> None:
    assert hub.presence[0].kind == "birth"
    envelope = server.sign(1, [server.install(1, {"model.onnx": linear(1)})])
    posted = sum(path.endswith("/reports") for _, path, _ in server.requests)
    hub.publish(Kind.DEPLOY, envelope)
    server.wait_report("deployed", execution="e1")
    assert (Kind.ACK, "accepted") in hub.kinds
    assert (Kind.STATUS, "deployed") in hub.kinds
    assert sum(path.endswith("/reports") for _, path, _ in server.requests) == posted
    wait_for(lambda: agent._spool.pending_count == 0, what="an empty spool")
    wait_for(lambda: hub.presence[-1].generation == 1, what="presence")

    answer = hub.ask("predict", [1, 2, 3, 4])
    assert (answer.status, msgspec.json.decode(answer.body)["outputs"]["y"]) == (200, [[10.0]])
    assert hub.ask("predict", "nonsense").status == 400
    assert msgspec.json.decode(hub.ask("diagnose").body)["mqtt_connected"] is True
    assert hub.ask("format").status == 404

    # Noise on the topics harms nobody.
    for kind in topics.TO_DEVICE:
        for payload in (b"", b"\xff" * 300, b"[]", b"null", b"{" * 5000, b"x" * 300_000):
            hub.publish(kind, payload)
    hub.publish(Kind.DEPLOY, server.sign(2, [server.install(2, {"model.onnx": linear(2)})]))
    server.wait_report("deployed", execution="e2")
    agent.stop()
    wait_for(lambda: hub.presence[-1].kind == "goodbye", what="the goodbye")


def test_it_polls_while_the_broker_is_away_and_comes_back(
    server: FakeServer, hub: Hub, agent: Agent, broker: BrokerThread
) -> None:
    broker.stop()
    server.deploy(1, {"model.onnx": linear(1)})
    server.wait_report("deployed", execution="e1")
    births = len(hub.presence)
    broker.start()
    wait_for(lambda: any(p.kind == "birth" for p in hub.presence[births:]), 30, "a new birth")
    assert request(f"{agent.url}/infer", [1, 1, 1, 1])[0] == 200


def test_reports_that_nobody_confirms_over_mqtt_go_over_http(
    server: FakeServer, hub: Hub, agent: Agent
) -> None:
    hub.stores = False
    hub.publish(Kind.DEPLOY, server.sign(1, [server.install(1, {"model.onnx": linear(1)})]))
    server.wait_report("deployed", execution="e1")
    wait_for(lambda: agent._spool.pending_count == 0, what="an empty spool")
    assert any(path.endswith("/reports") for _, path, _ in server.requests)
