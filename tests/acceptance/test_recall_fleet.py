"""A recall over fifty simulated devices, ten of which are away."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from edgeflow_mlflow.api import records
from edgeflow_mlflow.client import ApiError
from tests.acceptance.test_simulation import Start, pictures, seen, simulate, token
from tests.harness import Server, command, until

__all__ = ["simulate"]  # the fixture

_TRAINING = """
import sys
import mlflow, numpy as np, onnx, pandas as pd
from onnx import TensorProto, helper

def model(word):
    node = helper.make_node("Add", ["x", "x"], ["y"], doc_string=word)
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph([node], "g", [value("x")], [value("y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

for seed, name in enumerate(("march", "april")):
    with mlflow.start_run():
        frame = pd.DataFrame(np.random.default_rng(seed).normal(size=(50, 2)), columns=["a", "b"])
        mlflow.log_input(mlflow.data.from_pandas(frame, name=name), context="training")
        mlflow.onnx.log_model(model(name), name="m", registered_model_name="recalled")
"""
_AWAY = 10
_THERE = 40


def _counts(server: Server, recall: str) -> dict[str, int]:
    return server.client.recall_detail(recall).recall.counts


def test_a_recall_over_fifty_devices(server: Server, simulate: Start, tmp_path: Path) -> None:
    client = server.client
    command("python", "-c", _TRAINING, environment=server.environment_of_clients(), folder=tmp_path)
    there = simulate("there-", _THERE, "--token", token(server, _THERE), "--labels", "recall=yes")
    away = simulate("away-", _AWAY, "--token", token(server, _AWAY), "--labels", "recall=yes")
    seen(there, lambda picture: picture["connected"] == _THERE, "all that are there")
    seen(away, lambda picture: picture["connected"] == _AWAY, "all that go away")
    client.create_deployment(
        records.DeploymentCreate(
            name="recalled", model_uri="models:/recalled/1", where=records.Place(selector="recall=yes")
        )
    )
    until(lambda: client.rollout("recalled").state == "succeeded", "version 1 everywhere")
    client.change_deployment("recalled", records.DeploymentChange(model_uri="models:/recalled/2"))
    until(lambda: client.rollout("recalled").state == "succeeded", "version 2 everywhere")
    assert away.popen is not None
    away.popen.send_signal(signal.SIGINT)
    assert away.popen.wait(30) == 0, away.text()
    until(
        lambda: Counter(item.status for item in client.targets(selector="recall=yes"))["online"] == _THERE,
        "ten to be missed",
    )

    plan = client.plan_recall(name="april")
    assert plan.counts == {"roll_out": _THERE + _AWAY}
    assert [item.uri for item in plan.alternatives] == ["models:/recalled/1"]
    recall = client.recall("april was recorded upside down", name="april").recall.id
    found = client.wait_for_recall(recall, 60)
    assert found.recall.counts == {"corrected": _THERE, "offline": _AWAY}, pictures(there)[-1]
    offline = {item.target for item in found.devices if item.status == "offline"}
    assert offline == {f"away-{number:04d}" for number in range(1, _AWAY + 1)}
    reach = client.dataset_reach(name="april")
    assert {item.target for item in reach.devices} == offline
    with pytest.raises(ApiError, match="upside down") as refused:
        client.change_deployment("recalled", records.DeploymentChange(model_uri="models:/recalled/2"))
    assert refused.value.status == 409

    simulate("away-", _AWAY)
    until(lambda: _counts(server, recall) == {"corrected": _THERE + _AWAY}, "those that came back")
    assert not client.dataset_reach(name="april").devices
