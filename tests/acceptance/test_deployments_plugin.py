"""`mlflow deployments … -t edgeflow` and get_deploy_client, with real devices."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.deployments import get_deploy_client
from mlflow.exceptions import MlflowException

from tests.harness import BIN, Agent, Process, Server, command, deployed, request, tracking, until

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with tracking(server.address):
        yield get_deploy_client("edgeflow")


@pytest.fixture
def run(server: Server) -> Any:
    def typed(*words: str, fails: bool = False) -> str:
        done = command(
            "mlflow", "deployments", *words, environment=server.environment_of_clients(), fails=fails
        )
        return done.stdout + done.stderr

    return typed


def test_the_command_line_from_create_to_delete(
    server: Server, agent: Agent, iris: str, run: Any, tmp_path: Path
) -> None:
    name = agent.target
    words = ("-t", "edgeflow", "--name", name)
    assert "is created" in run(
        "create", *words, "-m", f"models:/{iris}/1", "-C", f"target={name}", "-C", "wait=30"
    )
    assert agent.serves() == (iris, "1")
    assert agent.infer([5.1, 3.5, 1.4, 0.2]).json["labels"] == ["setosa"]
    assert name in run("list", "-t", "edgeflow")
    shown = run("get", *words)
    assert "status: deployed" in shown
    inputs = tmp_path / "in.json"
    inputs.write_text(json.dumps([ROW]))
    assert json.loads(run("predict", *words, "-I", str(inputs)))["predictions"] == ["setosa"]
    inputs.write_text(json.dumps([list(ROW.values())] * 2))
    assert json.loads(run("predict", *words, "-I", str(inputs)))["predictions"] == ["setosa"] * 2
    run("update", *words, "-m", f"models:/{iris}/2", "-C", "wait=30")
    assert agent.serves() == (iris, "2")
    assert "does not explain" in run("explain", *words, "-I", str(inputs), fails=True)
    run("delete", *words, "-C", "wait=30")
    assert agent.serves() is None, "the command has waited for it"
    assert f"no deployment '{name}'" in run("get", *words, fails=True)


def test_refusals_are_one_clear_line(server: Server, agent: Agent, iris: str) -> None:
    # In this process: the command takes seconds to begin with.
    from click.testing import CliRunner
    from mlflow.cli import cli

    uri, target = f"models:/{iris}/1", f"target={agent.target}"
    words = ("create", "-t", "edgeflow", "--name", "typo", "-m")
    for arguments, expected in (
        ((uri, "-C", "traget=x"), "did you mean -C target"),
        ((uri, "-C", "target=robot-nobody"), "no target 'robot-nobody'"),
        ((uri,), "exactly one of target"),
        ((uri, "-C", target, "-C", "max_error_rate=much"), "wants a share"),
        ((f"models:/{iris}/99", "-C", target), "not found"),
        (("models:/nothing/1", "-C", target), "not found"),
        (("/tmp/model", "-C", target), "models:/NAME/VERSION"),
        ((uri, "-C", target, "--flavor", "sklearn"), "ONNX models only"),
    ):
        with tracking(server.address):
            done = CliRunner().invoke(cli, ["deployments", *words, *arguments])
        said = f"{done.output}{done.exception}"
        assert done.exit_code != 0
        assert expected in said, said
    said = command(
        "mlflow", "deployments", "list", "-t", "edgeflow", fails=True,
        environment={"MLFLOW_TRACKING_URI": "sqlite:///x.db"},
    )  # fmt: skip
    assert "set MLFLOW_TRACKING_URI" in said.stderr


def test_help_explains_every_key(run: Any) -> None:
    from edgeflow_mlflow.plugin.deploy_keys import KEYS

    said = run("help", "-t", "edgeflow")
    assert all(f"  {key.name} " in said for key in KEYS)


def test_python_client(client: Any, server: Server, agent: Agent, iris: str) -> None:
    name = agent.target
    made = client.create_deployment(
        name, f"models:/{iris}/1", config={"target": name, "wait": 30, "threads": "1"}
    )
    assert (made["name"], made["flavor"], made["status"]) == (name, "onnx", "deployed")
    got = client.get_deployment(name)
    assert got["executions"][0]["state"] == "deployed"
    assert got["lineage"]["run"]["params"]["estimator"] == "logistic"
    assert {item["name"] for item in got["lineage"]["datasets"]} == {"iris-training", "iris-testing"}
    for inputs in (pd.DataFrame([ROW]), np.array([[5.1, 3.5, 1.4, 0.2]]), [5.1, 3.5, 1.4, 0.2], ROW):
        answer = client.predict(deployment_name=name, inputs=inputs)
        assert answer["predictions"] == ["setosa"]
        assert answer["target"] == name
    with pytest.raises(MlflowException, match="sepal_width"):
        client.predict(deployment_name=name, inputs={"sepal_length": 5.1})
    with pytest.raises(MlflowException, match="exists already"):
        client.create_deployment(name, f"models:/{iris}/1", config={"target": name})
    client.update_deployment(name, config={"trial_seconds": 1, "wait": 30})
    client.update_deployment(name, config={"max_error_rate": 0.5, "wait": 30})
    rollout = client.get_deployment(name)["rollout"]
    assert rollout["number"] == 3
    assert (rollout["trial"]["duration_s"], rollout["trial"]["max_error_rate"]) == (1.0, 0.5)
    assert rollout["runtime"]["threads"] == 1, "what is not named stays"
    for refuse in (client.explain, client.predict_stream):
        with pytest.raises(MlflowException) as caught:
            refuse(deployment_name=name)
        assert caught.value.error_code == "NOT_IMPLEMENTED"
    client.delete_deployment(name, config={"keep_serving": "true"})
    with pytest.raises(MlflowException) as caught:
        client.get_deployment(name)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert agent.serves() == (iris, "1"), "it keeps what it has"


def test_a_deletion_says_which_devices_have_not_let_go(
    client: Any, server: Server, agent: Agent, iris: str
) -> None:
    name = agent.target
    client.create_deployment(name, f"models:/{iris}/1", config={"target": name, "wait": 30})
    agent.stop()
    with pytest.raises(MlflowException, match=f"1 of 1 devices have not let go of it after 1 s .{name}"):
        client.delete_deployment(name, config={"wait": 1})
    with pytest.raises(MlflowException, match="no deployment"):
        client.get_deployment(name)
    agent.start()
    until(lambda: agent.serves() is None, "the device to hear of it")


def test_endpoints_are_fleets(
    client: Any, server: Server, agents: list[Agent], iris: str, tmp_path: Path
) -> None:
    pair = [Agent(server, f"fleet-{number}", tmp_path).enrol().start() for number in (1, 2)]
    agents.extend(pair)
    for item in pair:
        server.client.label(item.target, {"line": "seven"})
    made = client.create_endpoint("line-seven", config={"selector": "line=seven"})
    assert made["targets"] == ["fleet-1", "fleet-2"]
    client.create_deployment("on-fleet", f"models:/{iris}/1", endpoint="line-seven")
    deployed(server, "on-fleet")
    assert [item["name"] for item in client.list_deployments(endpoint="line-seven")] == ["on-fleet"]
    assert client.predict(endpoint="line-seven", inputs=[5.1, 3.5, 1.4, 0.2])["predictions"] == ["setosa"]
    client.update_endpoint("line-seven", config={"targets": "fleet-1"})
    assert client.get_endpoint("line-seven")["targets"] == ["fleet-1"]
    assert "line-seven" in [item["name"] for item in client.list_endpoints()]
    with pytest.raises(MlflowException, match="used by deployment"):
        client.delete_endpoint("line-seven")
    client.delete_deployment("on-fleet")
    client.delete_endpoint("line-seven")


def test_run_local_brings_a_server_and_a_device_of_its_own(server: Server, iris: str, tmp_path: Path) -> None:
    words = ["deployments", "run-local", "-t", "edgeflow", "--name", "trial", "-m", f"models:/{iris}/1"]
    process = Process([str(BIN / "mlflow"), *words], tmp_path, "local", server.environment_of_clients())
    process.start()
    try:
        said = until(lambda: re.search(r"answers at (\S+)/infer", process.text()), "run-local", 100)
        answer = request("POST", f"{said[1]}/infer", [5.1, 3.5, 1.4, 0.2])
        assert answer.json["labels"] == ["setosa"]
        assert process.popen is not None
        os.killpg(process.popen.pid, signal.SIGINT)
        until(lambda: not process.running, "run-local to end")
        assert "Traceback" not in process.text(), process.text()[-3000:]
    finally:
        process.stop()


def test_another_server_by_its_address(server: Server) -> None:
    for uri in (f"edgeflow:{server.address}", server.address.replace("http://", "edgeflow://")):
        assert isinstance(get_deploy_client(uri).list_deployments(), list)
