"""A model with declared steps from an example script to a device, and an answer over each way there is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.deployments import get_deploy_client

from tests.harness import ROOT, Agent, Server, command, deployed, request, tracking


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with tracking(server.address):
        yield get_deploy_client("edgeflow")


def test_a_classifier_of_files_from_its_example_to_a_device(
    server: Server, agent: Agent, client: Any
) -> None:
    script = ROOT / "examples" / "models" / "file_type.py"
    command(
        "python", str(script), "--tracking-uri", server.address, environment=server.environment_of_clients()
    )
    # A server that lost its files fetches the steps from MLflow again, as it does the graph.
    agent.stop()
    client.create_deployment(agent.target, "models:/file-type/1", config={"target": agent.target})
    shutil.rmtree(server.folder / "edgeflow-data" / "blobs")
    agent.start()
    deployed(server, agent.target)
    content = Path(__file__).read_bytes()
    headers = {"Content-Type": "application/octet-stream"}
    answer = request("POST", f"{agent.url}/infer", data=content, headers=headers).json
    assert answer["result"]["type"]["label"] == "python"
    asked = client.predict(agent.target, content)
    assert asked["predictions"] == answer["result"]
    client.delete_deployment(agent.target, config={"wait": "30"})
