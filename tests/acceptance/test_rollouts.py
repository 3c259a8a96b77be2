"""Rollouts on a real server with real agents: waves, a bad version that is taken back, a hub that dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from edgeflow_mlflow.api import records
from tests.acceptance.test_workers import TAKEOVER_S, hubs
from tests.harness import Agent, Server, command, until

COUNT = 3


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server whose hub a test may kill."""
    server = Server(tmp_path / "own")
    yield server.start()
    server.stop()


@pytest.fixture
def fleet(own: Server, tmp_path: Path) -> Iterator[list[Agent]]:
    """Some robots that serve version 1."""
    robots = [Agent(own, f"robot-{number}", tmp_path).enrol().start() for number in range(1, COUNT + 1)]
    try:
        register(own, tmp_path)
        typed(own, "create", "models:/double/1", "-C", "targets=" + ",".join(r.target for r in robots))
        yield robots
    finally:
        for robot in robots:
            robot.stop()


def model(word: str, *, fails: bool) -> onnx.ModelProto:
    """Twice the input; the bad one takes the row whose number is the largest value: mostly there is none."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"], doc_string=word)]
    if fails:
        nodes = [
            helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
            helper.make_node("Cast", ["m"], ["i"], to=TensorProto.INT64),
            helper.make_node("Gather", ["x", "i"], ["y"]),
        ]
    shape: list[Any] = [None, 2]
    graph = helper.make_graph(
        nodes,
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] if fails else shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def register(server: Server, folder: Path) -> None:
    """Three versions of one model, the second of which fails."""
    places = [str(folder / f"{number}.onnx") for number in (1, 2, 3)]
    for place, fails in zip(places, (False, True, False), strict=True):
        onnx.save(model(place, fails=fails), place)
    code = (
        "import mlflow, onnx, sys\n"
        "mlflow.set_experiment('rollouts')\n"
        "for place in sys.argv[1:]:\n"
        "    mlflow.onnx.log_model(onnx.load(place), name='m', registered_model_name='double')\n"
    )
    command("python", "-c", code, *places, environment=server.environment_of_clients())


def typed(server: Server, verb: str, uri: str, *words: str) -> str:
    """`mlflow deployments …` as an operator types it."""
    done = command(
        "mlflow", "deployments", verb, "-t", "edgeflow", "--name", "double", "-m", uri, *words,
        environment=server.environment_of_clients(),
    )  # fmt: skip
    return done.stdout


def edgeflow(server: Server, *words: str, fails: bool = False) -> str:
    """`edgeflow …` as an operator types it."""
    return command("edgeflow", *words, environment=server.environment_of_clients(), fails=fails).stdout


def reaches(server: Server, state: str, timeout_s: float = 60.0) -> records.RolloutProgress:
    """Wait until the newest rollout is in this state."""

    def look() -> records.RolloutProgress | None:
        found = server.client.rollout("double")
        return found if found.state == state else None

    found = until(look, f"a rollout that is {state}: {server.client.rollout('double')}", timeout_s)
    assert found is not None
    return found


@contextlib.contextmanager
def asked(robots: list[Agent]) -> Iterator[None]:
    """Requests to all robots all the while, so that a trial has something to see."""
    import threading

    over = threading.Event()

    def ask(robot: Agent) -> None:
        while not over.is_set():
            robot.infer([[1.0, 3.0]])
            over.wait(0.01)

    threads = [threading.Thread(target=ask, args=(robot,), daemon=True) for robot in robots]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(10)


@pytest.mark.timeout(300)
def test_a_bad_version_stops_in_its_first_wave_and_is_taken_back(own: Server, fleet: list[Agent]) -> None:
    reaches(own, "succeeded")
    trial = ("-C", "trial_requests=10", "-C", "trial_seconds=1")
    with asked(fleet):
        typed(own, "update", "models:/double/2", "-C", "waves=1,100%", "-C", "on_failure=rollback", *trial)
        back = reaches(own, "succeeded")
    assert (back.number, back.returns_to, back.takes_back, back.version) == (3, 1, 2, "1")
    bad = own.client.rollout("double", 2)
    assert bad.state == "failed"
    assert [wave.state for wave in bad.waves] == ["failed", "scheduled"]
    (reading,) = bad.waves[0].readings
    assert (reading.gate, reading.verdict, reading.value) == ("failure_rate", "fail", 1.0)
    assert all(robot.serves() == ("double", "1") for robot in fleet), "and two never saw it"
    (touched,) = [item.target for item in own.client.rollout_targets("double", 2) if item.execution]
    told = edgeflow(own, "targets", "explain", touched)
    assert "double version 1" in told
    assert "rollout.fail" in edgeflow(own, "audit", "--deployment", "double")

    # The good one goes from wave to wave, watched by a script.
    with asked(fleet):
        waves = ("-C", "waves=1,100%", "-C", "soak=2", "-C", "gate_error_rate=0.01")
        typed(own, "update", "models:/double/3", *waves, *trial)
        lines = edgeflow(own, "rollouts", "watch", "double", "--json").splitlines()
    last = json.loads(lines[-1])
    assert (last["state"], [wave["state"] for wave in last["waves"]]) == ("succeeded", ["passed", "passed"])
    assert lines
    assert all(robot.serves() == ("double", "3") for robot in fleet)
    shown = edgeflow(own, "rollouts", "show", "double")
    assert "error_rate: pass, 0 of" in shown, shown


@pytest.mark.timeout(300)
def test_a_hub_dies_or_hangs_in_the_middle(own: Server, fleet: list[Agent]) -> None:
    reaches(own, "succeeded")
    typed(own, "update", "models:/double/3", "-C", "waves=1,2,100%", "-C", "soak=2")
    fences = [own.client.ready().hub_fence]
    (first,) = hubs(own)
    os.kill(first.pid, signal.SIGKILL)
    until(
        lambda: own.client.ready().hub and own.client.ready().hub_fence > fences[-1],
        "another hub",
        TAKEOVER_S,
    )
    fences.append(own.client.ready().hub_fence)
    (second,) = until(lambda: hubs(own), "its process")
    os.kill(second.pid, signal.SIGSTOP)
    try:
        until(lambda: own.client.ready().hub_fence > fences[-1], "a third hub", TAKEOVER_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(second.pid, signal.SIGCONT)
    until(lambda: second.pid not in [item.pid for item in hubs(own)], "its end")
    done = reaches(own, "succeeded", 90)
    assert [wave.state for wave in done.waves] == ["passed"] * 3
    assert all(robot.serves() == ("double", "3") for robot in fleet)
    entries = [
        (item.action, item.detail.get("wave"))
        for item in own.client.audit(subject="double")
        if item.rollout == done.number and item.action.startswith("wave.")
    ]
    expected = [(word, wave) for wave in (1, 2, 3) for word in ("wave.start", "wave.pass")]
    assert entries[::-1] == expected, "no wave twice"


@pytest.mark.timeout(300)
def test_pause_approve_and_hold_from_the_command_line(own: Server, fleet: list[Agent]) -> None:
    reaches(own, "succeeded")
    held = fleet[0].target
    edgeflow(own, "targets", "hold", held, "--why", "in repair")
    typed(own, "update", "models:/double/3", "-C", "waves=1,100%", "-C", "approval=true")
    until(lambda: "approve" in own.client.rollout("double").why, "the wait for approval")
    assert "paused by" in edgeflow(own, "rollouts", "pause", "double", "--why", "lunch")
    done = command(
        "edgeflow", "rollouts", "watch", "double", "--timeout", "5",
        environment=own.environment_of_clients(), fails=True,
    )  # fmt: skip
    assert done.returncode == 2, "somebody has to look"
    edgeflow(own, "rollouts", "resume", "double")
    edgeflow(own, "rollouts", "approve", "double", "--why", "looks good")
    reaches(own, "succeeded")
    assert {robot.target for robot in fleet if robot.serves() == ("double", "1")} == {held}
    edgeflow(own, "targets", "release", held)
    until(lambda: fleet[0].serves() == ("double", "3"), "the held one to catch up")
    told = edgeflow(own, "rollouts", "rollback", "double", "--to", "1", "--why", "complaints")
    assert "rollout 3 of double is running" in told
    reaches(own, "succeeded")
    assert all(robot.serves() == ("double", "1") for robot in fleet)
    assert "cannot pause" in command(
        "edgeflow", "rollouts", "pause", "double", environment=own.environment_of_clients(), fails=True
    ).stderr  # fmt: skip
