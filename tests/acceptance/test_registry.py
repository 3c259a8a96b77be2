"""What MLflow's registry and Edgeflow do to each other: verdicts, vetoes, aliases, lineage views."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from onnx import helper, numpy_helper

from edgeflow_mlflow.api import records
from tests.harness import Agent, Answer, Server, deployed, request, tracking, until


@pytest.fixture
def client(server: Server) -> Iterator[mlflow.MlflowClient]:
    with tracking(server.address):
        yield mlflow.MlflowClient()


def doubling() -> Any:
    """A model that adds its input to itself, with weights over 1 KB so that MLflow moves them to a file."""
    weights = numpy_helper.from_array(np.zeros((1, 1024), np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["twice"]),
            helper.make_node("ReduceSum", ["w"], ["zero"], keepdims=0),
            helper.make_node("Add", ["twice", "zero"], ["y"]),
        ],
        "double",
        [helper.make_tensor_value_info("x", 1, ["n", 3])],
        [helper.make_tensor_value_info("y", 1, ["n", 3])],
        [weights],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def get(server: Server, path: str) -> Answer:
    return request("GET", f"{server.api}{path}")


def deploy(server: Server, name: str, uri: str) -> None:
    server.client.create_deployment(
        records.DeploymentCreate(name=name, model_uri=uri, where=records.Place(targets=[name]))
    )
    deployed(server, name)


def test_a_model_logged_by_plain_mlflow_deploys_as_well(
    server: Server, client: mlflow.MlflowClient, agent: Agent
) -> None:
    name = f"plain-{uuid.uuid4().hex[:6]}"
    rows = np.ones((2, 3), np.float32)
    with mlflow.start_run() as run:
        info = mlflow.onnx.log_model(
            doubling(), name="model", registered_model_name=name, signature=infer_signature(rows, rows)
        )
    for number, uri in enumerate(
        (f"models:/{name}/1", f"runs:/{run.info.run_id}/model", f"models:/{info.model_id}")
    ):
        if number:
            server.client.change_deployment(agent.target, records.DeploymentChange(model_uri=uri))
            deployed(server, agent.target)
        else:
            deploy(server, agent.target, uri)
        detail = server.client.deployment(agent.target)
        assert detail.deployment.rollout.model.run_id == run.info.run_id
        assert len(detail.deployment.rollout.model.files) == 2, "the graph and its external weights"
        assert agent.infer([1, 2, 3]).json["outputs"]["y"] == [[2.0, 4.0, 6.0]]


def test_new_versions_are_judged_and_the_verdict_is_noted_in_our_table(
    server: Server, client: mlflow.MlflowClient, iris: str
) -> None:
    name = f"judged-{uuid.uuid4().hex[:6]}"
    with mlflow.start_run() as run:
        mlflow.log_text("flavors:\n  sklearn: {}\n", "model/MLmodel")
    client.create_registered_model(name)
    client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)

    def verdict(model: str, version: str) -> dict[str, Any]:
        found = get(server, f"/models/{model}/versions/{version}").json
        return found if found["verdict"] not in ("pending", "unknown") else {}

    bad = until(lambda: verdict(name, "1"), "a verdict on the bad version")
    assert bad["verdict"] == "not_deployable"
    assert "flavor sklearn" in bad["verdict_message"]
    assert until(lambda: verdict(iris, "1"), "a verdict on the good one")["verdict"] == "deployable"
    assert client.get_model_version(name, "1").tags == {}
    with pytest.raises(MlflowException, match="only ONNX models"):
        server.client.create_deployment(
            records.DeploymentCreate(
                name="never", model_uri=f"models:/{name}/1", where=records.Place(targets=["robot-none"])
            )
        )


def test_what_runs_somewhere_cannot_be_deleted(
    server: Server, client: mlflow.MlflowClient, agent: Agent
) -> None:
    name = f"kept-{uuid.uuid4().hex[:6]}"
    for _ in range(2):
        mlflow.onnx.log_model(doubling(), name="model", registered_model_name=name)
    deploy(server, agent.target, f"models:/{name}/1")
    for delete in (
        lambda: client.delete_model_version(name, "1"),
        lambda: client.delete_registered_model(name),
    ):
        with pytest.raises(MlflowException, match=f"runs on {agent.target}") as caught:
            delete()
        assert caught.value.error_code == "RESOURCE_CONFLICT"
    client.delete_model_version(name, "2")
    (found,) = get(server, f"/models/{name}/versions/1").json["runs_on"]
    until(lambda: get(server, f"/models/{name}/versions/1").json["runs_on"][0]["actual"], "its heartbeat")
    assert (found["target"], found["desired"]) == (agent.target, True)
    client.rename_registered_model(name, f"{name}-renamed")
    with pytest.raises(MlflowException, match="runs on"):
        client.delete_model_version(f"{name}-renamed", "1")
    server.client.delete_deployment(agent.target)
    until(lambda: not server.client.target(agent.target).actual.serving, "the device to stop serving")
    client.delete_model_version(f"{name}-renamed", "1")


def test_a_moved_alias_is_followed(server: Server, client: mlflow.MlflowClient, agent: Agent) -> None:
    name = f"aliased-{uuid.uuid4().hex[:6]}"
    for _ in range(2):
        mlflow.onnx.log_model(doubling(), name="model", registered_model_name=name)
    client.set_registered_model_alias(name, "champion", "1")
    deploy(server, agent.target, f"models:/{name}@champion")
    assert agent.serves() == (name, "1")
    client.set_registered_model_alias(name, "champion", "2")
    until(lambda: agent.serves() == (name, "2"), "the device to follow the alias")
    newest = server.client.history(agent.target).rollouts[0]
    assert newest.created_by == "alias"
    assert "moved from version 1 to 2" in newest.reason
    client.delete_registered_model_alias(name, "champion")
    assert agent.serves() == (name, "2")


def test_runs_experiments_and_models_show_their_devices(server: Server, agent: Agent, iris: str) -> None:
    deploy(server, agent.target, f"models:/{iris}/2")
    detail = server.client.deployment(agent.target)
    run_id = detail.deployment.rollout.model.run_id
    run = get(server, f"/runs/{run_id}").json
    assert agent.target in [item["target"] for item in run["runs_on"]]
    assert [item["name"] for item in run["datasets"]] == ["iris-training", "iris-testing"]
    experiment = get(server, f"/experiments/{run['experiment_id']}").json
    assert agent.target in [item["target"] for item in experiment["runs_on"]]
    runs = get(server, f"/runs?experiment_id={run['experiment_id']}").json["runs"]
    assert run_id in [item["id"] for item in runs]
    model = get(server, f"/models/{iris}").json
    assert agent.target in [item["target"] for item in model["model"]["runs_on"]]
    assert [item["version"] for item in model["versions"]] == ["2", "1"]
    assert server.client.target(agent.target).actual.run_id in (run_id, "")
    until(lambda: server.client.target(agent.target).actual.run_id == run_id, "its heartbeat")
    for path in ("/runs/" + "0" * 32, "/experiments/99999", "/models/none", f"/models/{iris}/versions/9"):
        assert get(server, path).status == 404


def test_lineage_survives_the_run(server: Server, client: mlflow.MlflowClient, agent: Agent) -> None:
    with mlflow.start_run() as run:
        mlflow.log_param("lr", 0.5)
        mlflow.onnx.log_model(doubling(), name="model")
    deploy(server, agent.target, f"runs:/{run.info.run_id}/model")
    client.delete_run(run.info.run_id)
    lineage = server.client.deployment(agent.target).lineage
    assert lineage["run"]["params"] == {"lr": "0.5"}
    assert {"what": "datasets", "why": "the run logged none (mlflow.log_input)"} in lineage["gaps"]


def test_only_deployable_models_where_that_is_asked_for(tmp_path: Path) -> None:
    server = Server(
        tmp_path, environment={"EDGEFLOW_REGISTRY_ONNX_POLICY": "reject", "EDGEFLOW_MQTT_BROKER": "off"}
    ).start()
    try:
        client = mlflow.MlflowClient(server.address)
        client.create_registered_model("m")
        run = client.create_run("0")
        client.log_text(run.info.run_id, "flavors:\n  sklearn: {}\n", "model/MLmodel")
        with pytest.raises(MlflowException, match="flavor sklearn") as caught:
            client.create_model_version("m", f"{run.info.artifact_uri}/model", run.info.run_id)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
        assert client.search_model_versions("name='m'") == []
    finally:
        server.stop()
