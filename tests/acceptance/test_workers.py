"""Several web workers, one hub: killing it moves it, and a deployment made meanwhile still arrives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edgeflow_mlflow.api import records
from tests.harness import ROOT, Agent, Server, command, deployed, request, until

# 15 s where nothing else runs: the lease, a start of Python, and a turn of the loop. Here others do.
TAKEOVER_S = 30.0


def hubs(server: Server) -> list[psutil.Process]:
    """The hub processes of a server."""
    assert server.process.popen is not None
    found = []
    for process in psutil.Process(server.process.popen.pid).children(recursive=True):
        try:
            if "edgeflow_mlflow.hub.process" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.slow), "postgresql"])
def four(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """`mlflow server --app-name edgeflow` with four uvicorn workers."""
    words: tuple[str, ...] = ("--workers", "4")
    if request.param == "postgresql":
        from tests.harness import new_database

        url = new_database(request.getfixturevalue("postgres_url"), "four_workers")
        words += ("--backend-store-uri", url)
    server = Server(tmp_path, kind="mlflow", words=words)
    yield server.start(timeout_s=100)
    server.stop()


@pytest.mark.timeout(300)
def test_the_hub_moves_when_it_is_killed(four: Server, tmp_path: Path) -> None:
    agent = Agent(four, "robot-07", tmp_path).enrol().start()
    environment = four.environment_of_clients()
    command("python", str(ROOT / "examples" / "train_iris.py"), environment=environment)
    try:
        (first,) = hubs(four)
        before = four.client.ready()
        assert before.hub_pid == first.pid
        began = time.monotonic()
        os.kill(first.pid, signal.SIGKILL)
        four.client.create_deployment(
            records.DeploymentCreate(
                name="iris", model_uri="models:/iris/1", where=records.Place(targets=["robot-07"])
            )
        )
        until(
            lambda: (ready := four.client.ready()).hub and ready.hub_fence > before.hub_fence,
            "another hub",
            TAKEOVER_S,
        )
        assert time.monotonic() - began < TAKEOVER_S
        deployed(four, "iris")
        assert agent.serves() == ("iris", "1")
        until(lambda: four.client.target("robot-07").connected, "MQTT to come back")
        (second,) = hubs(four)
        assert second.pid != first.pid

        # Now the web worker that is the hub's parent dies; the hub goes with it.
        parent = second.ppid()
        os.kill(parent, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(second.pid) or second.status() == "zombie", "the hub to follow")
        until(lambda: len(hubs(four)) == 1 and hubs(four)[0].pid != second.pid, "a third hub", TAKEOVER_S)
        until(lambda: four.client.ready().mqtt_healthy, "its broker")
        assert request("GET", f"{four.api}/targets").status == 200
    finally:
        agent.stop()


def test_two_servers_on_two_hosts_would_share_one_hub(postgres_url: str, tmp_path: Path) -> None:
    """Two servers with data folders (and so lock files) of their own: only the lease decides."""
    import shutil

    from tests.harness import new_database

    words = ("--workers", "1", "--backend-store-uri", new_database(postgres_url, "two_hosts"))
    first = Server(tmp_path / "a", kind="mlflow", words=words).start()
    # The same keys, as the documentation says.
    shutil.copytree(tmp_path / "a" / "edgeflow-data" / "keys", tmp_path / "b" / "edgeflow-data" / "keys")
    second = Server(tmp_path / "b", kind="mlflow", words=words, environment={"HOSTNAME": "other"}).start(
        hub=False
    )
    try:
        holders = {server.client.ready().hub_holder for server in (first, second)}
        assert len(holders) == 1
    finally:
        second.stop()
        first.stop()
