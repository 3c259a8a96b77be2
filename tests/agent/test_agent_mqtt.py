"""The agent on the real broker behind its gatekeeper: documents, reports, presence, questions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire import documents, topics
from edgeflow_agent.wire.documents import Presence, Report, RpcRequest, RpcResponse, Stored
from edgeflow_agent.wire.topics import Kind
from edgeflow_mlflow.broker.embedded import EmbeddedBroker
from edgeflow_mlflow.broker.port import EmbeddedSettings, Handlers
from tests.agent.conftest import enrol, linear, request, settings, wait_for


class Hub:
    """The server's side of MQTT: answers a birth with the document, confirms reports."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.stores = True
        self.presence: list[Presence] = []
        self.answers: list[RpcResponse] = []
        self.kinds: list[tuple[Kind, str]] = []
        self.port = 0
        self.start()
        server.mqtt = self.broker.address

    def start(self) -> None:
        handlers = Handlers(
            on_message=self._message,
            authenticate=lambda target, password: (
                target == self.server.target and self.server.admits(password)
            ),
        )
        self.broker = EmbeddedBroker(EmbeddedSettings(port=self.port), handlers)
        self.broker.start()
        self.port = int(self.broker.address.rpartition(":")[2])

    def stop(self) -> None:
        self.broker.stop()

    def publish(self, kind: Kind, payload: bytes) -> None:
        self.broker.publish(self.server.target, kind, payload)

    def _message(self, target: str, kind: Kind, payload: bytes) -> None:
        if kind is Kind.PRESENCE:
            self.presence.append(documents.decode(Presence, payload))
            if self.presence[-1].kind == "birth" and self.server.envelope:
                self.publish(Kind.DEPLOY, self.server.envelope)
        elif kind in (Kind.ACK, Kind.STATUS):
            report = documents.decode(Report, payload)
            self.kinds.append((kind, report.state.value))
            if self.stores:
                self.server.store(report)
                self.publish(Kind.STORED, documents.encode(Stored(boot=report.boot, seqs=(report.seq,))))
        elif kind is Kind.RPC_RESPONSE:
            self.answers.append(documents.decode(RpcResponse, payload))

    def ask(self, method: str, body: Any = None) -> RpcResponse:
        before = len(self.answers)
        self.publish(
            Kind.RPC_REQUEST,
            documents.encode(
                RpcRequest(
                    id=f"q{len(self.answers)}", method=method, body=msgspec.Raw(msgspec.json.encode(body))
                )
            ),
        )
        wait_for(lambda: len(self.answers) > before, what=f"an answer to {method}")
        return self.answers[-1]


@pytest.fixture
def hub(server: FakeServer) -> Iterator[Hub]:
    server.poll_s = 0.2
    hub = Hub(server)
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
        for payload in (b"", b"\xff" * 300, b"[]", b"null", b"{" * 5000, b"x" * 200_000):
            hub.publish(kind, payload)
    hub.publish(Kind.DEPLOY, server.sign(2, [server.install(2, {"model.onnx": linear(2)})]))
    server.wait_report("deployed", execution="e2")
    agent.stop()
    wait_for(lambda: hub.presence[-1].kind == "goodbye", what="the goodbye")


def test_it_polls_while_the_broker_is_away_and_comes_back(server: FakeServer, hub: Hub, agent: Agent) -> None:
    hub.stop()
    server.deploy(1, {"model.onnx": linear(1)})
    server.wait_report("deployed", execution="e1")
    births = len(hub.presence)
    hub.start()
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


def test_a_new_credential_is_used_for_mqtt_as_well(server: FakeServer, hub: Hub, agent: Agent) -> None:
    old = server.credential
    births = sum(item.kind == "birth" for item in hub.presence)
    agent._identity.change(credential_at=None)
    wait_for(lambda: server.credential != old, what="the first use of a new credential")

    def connected_anew() -> bool:
        link = agent._link
        return link is not None and link.connected and link.credential == server.credential

    wait_for(connected_anew, what="a connection with the new credential")
    # Every connection begins with a birth: whoever missed what came in between sends it again.
    wait_for(lambda: sum(item.kind == "birth" for item in hub.presence) > births, what="a birth")
    hub.publish(Kind.DEPLOY, server.sign(1, [server.install(1, {"model.onnx": linear(1)})]))
    server.wait_report("deployed", execution="e1")
