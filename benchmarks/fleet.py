"""What the benchmarks of deployments share: a server, an agent and two models of a given size."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import mlflow
import numpy as np
from onnx import helper, numpy_helper

from edgeflow_mlflow.api import records
from tests.harness import Agent, Server, deployed, until

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
ROW = [5.1, 3.5, 1.4, 0.2]


def network(seed: int, hidden: int) -> Any:
    """Four inputs, a hidden layer, three outputs: about 28 bytes per hidden unit, and padding weights."""
    rng = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "b"], ["y"]),
        ],
        "network",
        [helper.make_tensor_value_info("x", 1, ["n", 4])],
        [helper.make_tensor_value_info("y", 1, ["n", 3])],
        [weights("a", 4, hidden), weights("b", hidden, 3)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@contextlib.contextmanager
def fleet(folder: Path, *, hidden: int) -> Iterator[tuple[Server, Agent]]:
    """A server with models:/net/1 and /2 and an agent that serves the first, with MQTT there."""
    server = Server(folder).start()
    agent = Agent(server, "robot-07", folder).enrol().start()
    try:
        mlflow.set_tracking_uri(server.address)
        for seed in (1, 2):
            mlflow.onnx.log_model(
                network(seed, hidden), name="net", registered_model_name="net", save_as_external_data=False
            )
        until(lambda: server.client.target("robot-07").connected, "MQTT")
        where = records.Place(targets=["robot-07"])
        server.client.create_deployment(
            records.DeploymentCreate(name="net", model_uri="models:/net/1", where=where)
        )
        deployed(server, "net")
        yield server, agent
    finally:
        agent.stop()
        server.stop()


def move(server: Server, version: int) -> None:
    """Deploy a version and wait until the server knows that it is there."""
    server.client.change_deployment("net", records.DeploymentChange(model_uri=f"models:/net/{version}"))
    deployed(server, "net")
