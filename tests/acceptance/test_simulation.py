"""A real server and simulated devices: they deploy, they fail, and they come back as the same fleet."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeflow_mlflow.api import records
from edgeflow_mlflow.simulation import chance
from tests.harness import BIN, Process, Server, until

Start = Callable[..., Process]

# Who fails with which model depends on its digest: a few of 60, not so many that the rollout is halted.
BAD = 0.08


@pytest.fixture
def simulate(server: Server, tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def start(prefix: str, devices: int, *words: str) -> Process:
        process = Process(
            [
                str(BIN / "edgeflow"), "simulate", "--server", server.address, "--json",
                "--devices", str(devices), "--prefix", prefix, "--state-dir", str(tmp_path / prefix),
                "--install-time", "0.1..0.5", *words,
            ],
            tmp_path,
            f"{prefix}{len(started)}",
        )  # fmt: skip
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop()


def pictures(process: Process) -> list[dict[str, Any]]:
    """What it has shown, second by second."""
    text = process.text()
    lines = [line for line in text.splitlines() if line.startswith("{")]
    assert process.running or lines, text
    return [json.loads(line) for line in lines if line.endswith("}")]


def seen(process: Process, condition: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    """The first picture that fits."""

    def fits() -> dict[str, Any]:
        assert process.running, process.text()
        return next(filter(condition, reversed(pictures(process))), {})

    return until(fits, what, 40)


def states(server: Server, name: str) -> dict[str, tuple[str, str]]:
    found = server.client.deployment(name).executions
    return {item.target: (item.state, item.reason) for item in found}


def ended(server: Server, name: str) -> dict[str, tuple[str, str]]:
    """How it ended on each device, when it has on all."""
    for _ in server.client.watch(name, 40):
        pass
    return states(server, name)


def token(server: Server, uses: int) -> str:
    return server.client.create_token(records.TokenCreate(uses=uses)).token


def test_a_fleet_over_mqtt_and_the_same_fleet_again(server: Server, iris: str, simulate: Start) -> None:
    names = {f"mqtt-{number:04d}" for number in range(1, 61)}
    words = ("--bad", str(BAD), "--labels", "plant=simulated", "--seed", "3")
    first = simulate("mqtt-", 60, "--token", token(server, 60), *words)
    seen(first, lambda picture: picture["connected"] == 60, "60 connections")

    labelled = server.client.targets(selector="plant=simulated")
    assert {item.id for item in labelled} == names
    server.client.create_deployment(
        records.DeploymentCreate(
            name="simulated",
            model_uri=f"models:/{iris}/1",
            where=records.Place(selector="plant=simulated"),
        )
    )
    outcome = ended(server, "simulated")
    digest = next(model["digest"] for picture in reversed(pictures(first)) for model in picture["models"])
    bad = {name for name in names if chance.is_bad(3, name, digest, BAD)}
    assert 0 < len(bad) < 30
    assert {name for name, end in outcome.items() if end == ("deployed", "")} == names - bad
    assert {name for name, end in outcome.items() if end == ("failed", "model")} == bad
    picture = seen(
        first,
        lambda picture: picture["waiting_reports"] == 0 and picture["serving"] + picture["failed"] == 60,
        "every report to be stored",
    )
    assert (picture["serving"], picture["failed"]) == (60 - len(bad), len(bad))

    assert first.popen is not None
    first.popen.send_signal(signal.SIGINT)
    assert first.popen.wait(30) == 0, first.text()
    until(
        lambda: not any(item.connected for item in server.client.targets(selector="plant=simulated")),
        "the goodbyes",
    )

    again = simulate("mqtt-", 60, *words)  # without a token
    picture = seen(again, lambda picture: picture["connected"] == 60, "60 connections again")
    assert picture["serving"] == 60 - len(bad)
    assert {item.id for item in server.client.targets(selector="plant=simulated")} == names
    assert states(server, "simulated") == outcome, "nothing was carried out twice"
    assert "enrolled" not in again.text()


def test_a_fleet_over_http_that_fetches_its_files(server: Server, iris: str, simulate: Start) -> None:
    process = simulate("http-", 10, "--token", token(server, 10), "--http", "--download")
    names = [f"http-{number:04d}" for number in range(1, 11)]
    until(lambda: {item.id for item in server.client.targets()} >= set(names), "10 devices")
    server.client.create_deployment(
        records.DeploymentCreate(
            name="polled", model_uri=f"models:/{iris}/1", where=records.Place(targets=names)
        )
    )
    outcome = ended(server, "polled")
    assert outcome == dict.fromkeys(names, ("deployed", "")), process.text()[-3000:]
    picture = seen(
        process,
        lambda picture: picture["waiting_reports"] == 0 and picture["downloaded_bytes"] > 0,
        "every report to be stored",
    )
    assert (picture["connected"], picture["sent"]) == (0, 0)
    assert picture["downloaded_bytes"] > 0
    until(lambda: server.client.target(names[0]).in_sync, "presence")


def test_without_a_token_it_says_what_to_do(server: Server, simulate: Start) -> None:
    process = simulate("nobody-", 3)
    assert process.popen is not None
    assert process.popen.wait(30) == 1
    assert "edgeflow tokens create --uses 3" in process.text()
