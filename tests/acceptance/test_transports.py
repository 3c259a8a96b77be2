"""A device gets its deployments whatever is down: by MQTT, by poll, and from its own disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeflow_mlflow.api import records
from tests.harness import IN_CI, ROOT, Agent, Server, command, deployed, free_port, request, tracking, until

ROW = [5.1, 3.5, 1.4, 0.2]


def deploy(server: Server, name: str, uri: str, target: str) -> None:
    server.client.create_deployment(
        records.DeploymentCreate(name=name, model_uri=uri, where=records.Place(targets=[target]))
    )
    deployed(server, name)


def train(server: Server) -> None:
    command("python", str(ROOT / "examples" / "train_iris.py"), environment=server.environment_of_clients())


def test_without_a_broker_a_deployment_arrives_by_poll(tmp_path: Path) -> None:
    server = Server(tmp_path, environment={"EDGEFLOW_MQTT_BROKER": "off"}).start()
    agent = Agent(server, "robot-07", tmp_path).enrol().start()
    try:
        train(server)
        deploy(server, "iris", "models:/iris/1", "robot-07")
        assert agent.serves() == ("iris", "1")
        seen = server.client.target("robot-07")
        assert (seen.status, seen.connected, seen.in_sync) == ("online", False, True)
    finally:
        agent.stop()
        server.stop()


def test_without_a_server_the_device_goes_on_from_its_own_disk(tmp_path: Path) -> None:
    server = Server(tmp_path, mqtt_port=free_port()).start()
    agent = Agent(server, "robot-07", tmp_path).enrol().start()
    try:
        train(server)
        deploy(server, "iris", "models:/iris/1", "robot-07")
        server.process.kill()
        assert agent.infer(ROW).json["labels"] == ["setosa"]
        agent.process.kill()  # a power cut
        agent.start()
        until(lambda: agent.serves() == ("iris", "1"), "the device to serve from its own disk")
        assert agent.infer(ROW).json["labels"] == ["setosa"]
        # The server returns, and the device follows it again, by MQTT.
        server.start()
        command(
            "python", str(ROOT / "examples" / "train_iris.py"), "--estimator", "forest",
            environment=server.environment_of_clients(),
        )  # fmt: skip
        server.client.change_deployment("iris", records.DeploymentChange(model_uri="models:/iris/2"))
        deployed(server, "iris", 60)
        assert agent.serves() == ("iris", "2")
        until(lambda: server.client.target("robot-07").connected, "MQTT to come back", 60)
    finally:
        agent.stop()
        server.stop()


def test_a_revoked_device_is_cut_off_and_keeps_serving(server: Server, agent: Agent, iris: str) -> None:
    deploy(server, agent.target, f"models:/{iris}/1", agent.target)
    until(lambda: server.client.target(agent.target).connected, "its MQTT connection")
    server.client.revoke(agent.target)
    until(lambda: not server.client.target(agent.target).connected, "its connection to be closed", 5)
    assert agent.infer(ROW).status == 200
    server.client.delete_deployment(agent.target)
    assert agent.serves() == (iris, "1"), "it hears nothing any more"


def test_a_device_that_is_offline_gets_the_newest_when_it_returns(
    server: Server, agent: Agent, iris: str
) -> None:
    agent.stop()
    for version in (1, 2):
        if version == 1:
            server.client.create_deployment(
                records.DeploymentCreate(
                    name=agent.target,
                    model_uri=f"models:/{iris}/1",
                    where=records.Place(targets=[agent.target]),
                )
            )
        else:
            server.client.change_deployment(
                agent.target, records.DeploymentChange(model_uri=f"models:/{iris}/2")
            )
    agent.start()
    deployed(server, agent.target)
    assert agent.serves() == (iris, "2")
    states = [item.state for item in server.client.history(agent.target).executions]
    assert sorted(states) == ["deployed", "superseded"]


def test_a_model_that_no_device_can_load_leaves_the_old_one_serving(
    server: Server, agent: Agent, iris: str, tmp_path: Path
) -> None:
    deploy(server, agent.target, f"models:/{iris}/1", agent.target)
    import mlflow
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    # It passes every check of files and graph, and takes 8 GB as soon as it runs.
    fill = helper.make_node(
        "ConstantOfShape", ["s"], ["big"], value=numpy_helper.from_array(np.ones(1, np.float32), "v")
    )
    graph = helper.make_graph(
        [
            fill,
            helper.make_node("ReduceSum", ["big"], ["r"], keepdims=0),
            helper.make_node("Add", ["x", "r"], ["y"]),
        ],
        "bomb",
        [helper.make_tensor_value_info("x", 1, ["n", 4])],
        [helper.make_tensor_value_info("y", 1, ["n", 4])],
        [numpy_helper.from_array(np.array([2, 2**30], np.int64), "s")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    with tracking(server.address):
        info = mlflow.onnx.log_model(made, name="bomb")
    uri = f"models:/{info.model_id}"
    server.client.change_deployment(
        agent.target,
        records.DeploymentChange(
            model_uri=uri, runtime=records.RuntimeSettings(max_memory_mb=1024, load_timeout_s=30)
        ),
    )
    for detail in server.client.watch(agent.target, 60):
        (last,) = detail.executions
    assert last.state == "failed", last
    assert last.reason.startswith("load")
    assert agent.serves() == (iris, "1")
    assert agent.infer(ROW).json["labels"] == ["setosa"]
    target = server.client.target(agent.target)
    assert not target.in_sync


def test_files_that_the_server_lost_are_fetched_again(server: Server, agent: Agent, iris: str) -> None:
    """A second server on the same database, or a restored one, does not have them at first."""
    agent.stop()
    server.client.create_deployment(
        records.DeploymentCreate(
            name=agent.target, model_uri=f"models:/{iris}/2", where=records.Place(targets=[agent.target])
        )
    )
    shutil.rmtree(server.folder / "edgeflow-data" / "blobs")
    agent.start()
    deployed(server, agent.target)
    assert agent.serves() == (iris, "2")


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[str]:
    """A real Mosquitto; its URL."""
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        assert not IN_CI, "Mosquitto must be installed in CI"
        pytest.skip("Mosquitto is not installed (make test installs it where it can)")
    port = free_port()
    (tmp_path / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen(
        [program, "-c", str(tmp_path / "mosquitto.conf")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield f"mqtt://127.0.0.1:{port}"
    process.terminate()
    process.wait()


def test_an_external_broker(mosquitto: str, tmp_path: Path) -> None:
    server = Server(tmp_path, environment={"EDGEFLOW_MQTT_BROKER": mosquitto}).start()
    agent = Agent(server, "robot-07", tmp_path).enrol().start()
    try:
        until(lambda: server.client.target("robot-07").connected, "the device's birth by Mosquitto")
        train(server)
        deploy(server, "iris", "models:/iris/1", "robot-07")
        answer = server.client.predict("iris", records.PredictRequest(inputs=ROW))
        told = server.client.diagnose("robot-07").answer
        assert (told["healthy"], told["health"]["status"]) == (True, "ok"), told
        assert answer.answer["labels"] == ["setosa"]
        assert request("GET", f"{server.api}/ready").json["mqtt"].startswith("mqtt://127.0.0.1")
    finally:
        agent.stop()
        server.stop()
