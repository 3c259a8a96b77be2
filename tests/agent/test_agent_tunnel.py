"""A bad network: cut, stalled, slow and damaging, while a real agent fetches and tries out a model."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeflow_agent.runtime import enrolment
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire.documents import DesiredDeployment, Trial, bundle_digest
from edgeflow_agent.wire.topics import Kind
from tests.agent.conftest import AgentProcess, linear, request, settings, wait_for
from tests.agent.test_agent_mqtt import Hub
from tests.agent.tunnel import Connection, Tunnel

Start = Callable[..., AgentProcess]

MEGABYTES = 6
# What may be under way when the agent gives a stalled connection up: one piece.
UNDER_WAY = 64 * 1024
IMPATIENT = {
    "EDGEFLOW_AGENT_SERVER_TIMEOUT_S": "1",
    "EDGEFLOW_AGENT_SERVER_DOWNLOAD_GAP_S": "0.7",
}


@pytest.fixture
def tunnel(server: FakeServer) -> Iterator[Tunnel]:
    made = Tunnel("127.0.0.1", int(server.url.rpartition(":")[2]))
    yield made
    made.close()


class Caller(threading.Thread):
    """The application on the device: asks without a pause, and keeps what it is told."""

    def __init__(self, agent: AgentProcess) -> None:
        super().__init__(daemon=True)
        self._url = agent.url
        self._over = threading.Event()
        self.answers: list[float] = []
        self.refused: list[Any] = []

    def run(self) -> None:
        while not self._over.is_set():
            try:
                status, answer = request(f"{self._url}/infer", [1, 1, 1, 1])
            except OSError as error:
                self.refused.append(error)
                continue
            if status == 200:
                self.answers.append(answer["outputs"]["y"][0][0])
            else:
                self.refused.append((status, answer))

    def stop(self) -> None:
        self._over.set()
        self.join(20)


@pytest.fixture
def serving(server: FakeServer, tunnel: Tunnel, tmp_path: Path, agents: Start) -> AgentProcess:
    """An agent behind the tunnel that serves version 1."""
    state_dir = tmp_path / "state"
    behind = settings(state_dir, server_url=f"http://127.0.0.1:{tunnel.port}")
    enrolment.enrol(behind, token=server.token(), target=server.target)
    agent = agents(state_dir, env=IMPATIENT)
    server.deploy(1, {"model.onnx": linear(1)})
    server.wait_report("deployed", execution="e1")
    wait_for(lambda: agent.predicts() == 4.0, what="version 1")
    return agent


def fetches(tunnel: Tunnel, deployment: DesiredDeployment) -> list[Connection]:
    """The connections that fetched the model, in order."""
    path = f"/api/v1/device/blobs/{deployment.files[0].sha256}"
    return [item for item in list(tunnel.connections) if item.path == path]


def check_ranges(found: list[Connection], size: int, *, passes: int = 1) -> None:
    """Every fetch goes on where the one before has ended. Only what a broken line swallowed comes again."""
    whole = [item for item in found if item.cut != "hard" and item.start_of_range + item.body == size]
    assert len(whole) == passes
    for item, after in itertools.pairwise(found):
        kept = after.start_of_range - item.start_of_range
        if item.damaged:
            assert after.start_of_range == 0, "a damaged file is fetched anew, from its start"
        elif item.cut == "hard":
            assert 0 <= kept <= item.body
        elif item.client_left:
            assert item.body - UNDER_WAY <= kept <= item.body
        else:
            assert kept == item.body
    assert found[-1].start_of_range + found[-1].body == size


def told(caller: Caller, *values: float) -> None:
    """Every request was answered, and only by these versions, the last one last."""
    caller.stop()
    assert caller.refused == []
    assert len(caller.answers) > 100
    assert set(caller.answers) == set(values)
    assert caller.answers == sorted(caller.answers), "it went back without a reason"


def served_digest(agent: AgentProcess) -> str:
    return str(request(f"{agent.url}/model")[1]["digest"])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cut_stalled_and_slow(server: FakeServer, tunnel: Tunnel, serving: AgentProcess, seed: int) -> None:
    chance = random.Random(seed)
    caller = Caller(serving)
    caller.start()
    tunnel.rate = 3 * 2**20
    deployment = server.deploy(
        2, {"model.onnx": linear(2, padding=MEGABYTES * 2**20)}, trial=Trial(duration_s=1.5)
    )
    size = deployment.files[0].size

    def mishap() -> None:
        """One of three, while something is under way."""
        kind = chance.choice(["hard", "soft", "stall", "slow"])
        if kind == "stall":
            tunnel.stalled = True
            # Longer than the agent's patience, or not.
            threading.Event().wait(chance.choice([0.2, 1.2]))
            tunnel.stalled = False
        elif kind == "slow":
            tunnel.rate = chance.choice([1, 2, 3]) * 2**20
        else:
            tunnel.cut(hard=kind == "hard")

    def fetched() -> int:
        return max((item.start_of_range + item.body for item in fetches(tunnel, deployment)), default=0)

    for _ in range(6):
        goal = min(fetched() + chance.randrange(50_000, size // 6), size)
        wait_for(lambda goal=goal: fetched() >= goal, what="the download to go on")
        mishap()
    wait_for(lambda: serving.predicts() == 8.0, what="the trial")
    mishap()
    tunnel.cut(hard=True)
    report = server.wait_report("deployed", execution="e2")
    states = server.states("e2")
    assert [state for state in states if state != "trial"] == [
        "accepted", "downloading", "verifying", "loading", "deployed"
    ]  # fmt: skip
    check_ranges(fetches(tunnel, deployment), size)
    assert report.digest == served_digest(serving) == bundle_digest(deployment.files)
    told(caller, 4.0, 8.0)


def test_a_damaged_byte_is_never_served(server: FakeServer, tunnel: Tunnel, serving: AgentProcess) -> None:
    caller = Caller(serving)
    caller.start()
    # Past the head of the answer, so that it is the file that is hit.
    tunnel.corrupt_after = random.Random(4).randrange(10_000, 2**20)
    deployment = server.deploy(2, {"model.onnx": linear(2, padding=MEGABYTES * 2**20)})
    server.wait_report("deployed", execution="e2")
    found = fetches(tunnel, deployment)
    assert [item.damaged for item in found] == [True, False]
    check_ranges(found, deployment.files[0].size, passes=2)
    assert served_digest(serving) == bundle_digest(deployment.files)
    told(caller, 4.0, 8.0)


def test_damaged_again_it_is_given_up(server: FakeServer, tunnel: Tunnel, serving: AgentProcess) -> None:
    caller = Caller(serving)
    caller.start()
    tunnel.corrupt_after = 100_000
    tunnel.rate = 8 * 2**20
    deployment = server.deploy(2, {"model.onnx": linear(2, padding=MEGABYTES * 2**20)})
    wait_for(lambda: tunnel.corrupted == 1, what="the first damage")
    wait_for(lambda: len(fetches(tunnel, deployment)) == 2, what="the second try")
    tunnel.corrupt_after = 100_000
    report = server.wait_report("failed", execution="e2")
    assert (report.reason, tunnel.corrupted) == ("digest", 2)
    assert served_digest(serving) != bundle_digest(deployment.files)
    told(caller, 4.0)


def test_the_broker_behind_a_bad_network(server: FakeServer, tunnel: Tunnel, serving: AgentProcess) -> None:
    """MQTT is cut and stalled during the install; reports arrive all the same, each stored once."""
    chance = random.Random(5)
    hub = Hub(server)
    line = Tunnel("127.0.0.1", hub.port)
    server.mqtt = f"mqtt://127.0.0.1:{line.port}"
    caller = Caller(serving)
    try:
        # The agent hears of the broker when it next asks for its session.
        wait_for(lambda: hub.presence, what="the connection to the broker")
        caller.start()
        tunnel.rate = 3 * 2**20
        deployment = server.deploy(
            2, {"model.onnx": linear(2, padding=MEGABYTES * 2**20)}, trial=Trial(duration_s=1.5)
        )
        assert server.envelope is not None
        hub.publish(Kind.DEPLOY, server.envelope)
        size = deployment.files[0].size
        for step in range(1, 4):
            wait_for(
                lambda step=step: sum(item.body for item in fetches(tunnel, deployment)) > size * step // 5,
                what="the download to go on",
            )
            (line if chance.random() < 0.6 else tunnel).cut(hard=chance.random() < 0.5)
        line.stalled = True  # from here on, nothing that is said by MQTT is heard
        wait_for(lambda: serving.predicts() == 8.0, what="the trial")
        server.wait_report("deployed", execution="e2")
        line.stalled = False
        line.cut(hard=True)
        births = len([item for item in hub.presence if item.kind == "birth"])
        wait_for(
            lambda: len([item for item in hub.presence if item.kind == "birth"]) > births,
            what="the device to come back to the broker",
        )
        wait_for(lambda: hub.presence[-1].pending_reports == 0, what="an empty spool")
        assert hub.presence[-1].digest == bundle_digest(deployment.files)
        known = [(item.boot, item.seq) for item in list(server.reports)]
        assert len(known) == len(set(known))
        check_ranges(fetches(tunnel, deployment), size)
        told(caller, 4.0, 8.0)
    finally:
        line.close()
        hub.stop()
