"""A real device exchanges its credential at a real server, over and over, and never falls out."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

from edgeflow_mlflow.api import records
from tests.harness import Agent, Server, deployed, request, until

# About every two seconds.
OFTEN = {"EDGEFLOW_AGENT_SERVER_CREDENTIAL_DAYS": "0.000023", "EDGEFLOW_AGENT_SERVER_MQTT": ""}


def credential(agent: Agent) -> str:
    return str(json.loads((agent.state / "identity.json").read_text())["credential"])


def admitted(server: Server, text: str) -> bool:
    headers = {"Authorization": f"Bearer {text}"}
    return request("GET", f"{server.api}/device/session", headers=headers).status == 200


def test_a_device_exchanges_its_credential(
    server: Server, agents: list[Agent], tmp_path: Path, iris: str
) -> None:
    agent = Agent(server, f"robot-{uuid4().hex[:8]}", tmp_path, OFTEN).enrol()
    agents.append(agent)
    seen = [credential(agent)]
    agent.start()
    for power_cut in (False, True, False):
        until(lambda: credential(agent) != seen[-1], "a new credential")
        if power_cut:
            agent.process.kill()
            agent.start()
        until(lambda: not admitted(server, seen[-1]), "the end of the old credential")
        until(lambda: server.client.target(agent.target).connected, "MQTT with the new one")
        seen.append(credential(agent))

    server.client.create_deployment(
        records.DeploymentCreate(
            name=agent.target, model_uri=f"models:/{iris}/1", where=records.Place(targets=[agent.target])
        )
    )
    deployed(server, agent.target)
    assert agent.serves() == (iris, "1")
    assert "refuses this device" not in agent.process.text()
