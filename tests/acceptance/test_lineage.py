"""The whole story through the unchanged mlflow client, on real agents: three data sets, five runs, versions
that were logged, registered, copied and retrained. It is asked again after MLflow has forgotten it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeflow_mlflow.api import records
from edgeflow_mlflow.client import ApiError
from tests.harness import Agent, Server, command, deployed, request, until

_TRAINING = """
import json, sys
import mlflow, numpy as np, onnx, pandas as pd
from mlflow.entities import LoggedModelInput
from onnx import TensorProto, helper
import edgeflow_mlflow

def model(word):
    node = helper.make_node("Mul" if word == "e" else "Add", ["x", "x"], ["y"], doc_string=word)
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph([node], "g", [value("x")], [value("y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

def data(seed):
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(12_000, 2)), columns=["a", "b"])

said = {}
good, bad = data(1), data(1)
bad.loc[11_000, "a"] = 1e6  # where MLflow's digest does not look
mlflow.set_experiment("first")
with mlflow.start_run(run_name="good") as run:
    said["good"] = edgeflow_mlflow.log_dataset(good, name="sensors")
    mlflow.log_params({"depth": 3}); mlflow.log_metric("rmse", 0.25)
    mlflow.onnx.log_model(model("a"), name="m", registered_model_name="grip")
    said["run-good"] = run.info.run_id
with mlflow.start_run(run_name="bad") as run:
    mlflow.onnx.log_model(model("b"), name="m", registered_model_name="grip")
    said["bad"] = edgeflow_mlflow.log_dataset(bad, name="sensors")
    mlflow.log_params({"depth": 5}); mlflow.log_metric("rmse", 0.125)
    said["run-bad"] = run.info.run_id
mlflow.set_experiment("second")
parent = mlflow.MlflowClient().get_model_version("grip", "2").source.rsplit("/", 1)[-1]
with mlflow.start_run(run_name="retrained") as run:
    edgeflow_mlflow.log_dataset(data(2), name="extra")
    mlflow.MlflowClient().log_inputs(run.info.run_id, models=[LoggedModelInput(model_id=parent)])
    mlflow.onnx.log_model(model("c"), name="m", registered_model_name="grip")
    said["run-retrained"] = run.info.run_id
with mlflow.start_run(run_name="tested") as run:
    edgeflow_mlflow.log_dataset(data(3), name="third")
    edgeflow_mlflow.log_dataset(bad, name="sensors", context="eval")
    logged = mlflow.onnx.log_model(model("d"), name="m")
    mlflow.register_model(logged.model_uri, "grip")
    said["run-tested"] = run.info.run_id
with mlflow.start_run(run_name="plain") as run:
    mlflow.log_input(mlflow.data.from_pandas(good, name="sensors"), context="training")
    mlflow.onnx.log_model(model("e"), name="m", registered_model_name="other")
client = mlflow.MlflowClient()
client.copy_model_version("models:/grip/2", "copied")
client.set_registered_model_alias("grip", "champion", "2")
print(json.dumps(said))
"""
PAGE = Path(__file__).parents[2] / "docs" / "lineage.md"
ROBOTS = ("robot-1", "robot-2", "robot-3", "robot-4")
MODELS = ("models:/grip/2", "models:/grip/3", "models:/copied/1", "models:/grip/4")


@pytest.fixture(scope="module")
def said(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("training")
    (folder / "train.py").write_text(_TRAINING)
    done = subprocess.run(
        [sys.executable, "train.py"],
        env={**_environment(server), "LOGNAME": "ada"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def _environment(server: Server) -> dict[str, str]:
    return {**os.environ, **server.environment_of_clients(), "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture(scope="module")
def robots(
    server: Server, said: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Agent]]:
    folder = tmp_path_factory.mktemp("robots")
    agents = {name: Agent(server, name, folder).enrol().start() for name in ROBOTS}
    for name, uri in zip(ROBOTS, MODELS, strict=True):
        server.client.create_deployment(
            records.DeploymentCreate(name=f"d-{name}", model_uri=uri, where=records.Place(targets=[name]))
        )
    for name in ROBOTS:
        deployed(server, f"d-{name}")
    yield agents
    for agent in agents.values():
        agent.stop()


def _answers(server: Server, said: dict[str, str]) -> dict[str, Any]:
    """The three questions, without what changes by itself."""
    client = server.client
    lineage = {name: client.lineage(name) for name in ROBOTS}
    runs = {name: (item.model and item.model.run) or {} for name, item in lineage.items()}
    reach = client.dataset_reach(content=said["bad"])
    diff = client.diff("robot-1", "robot-4")
    return {
        "runs": {name: run.get("id") for name, run in runs.items()},
        "params": {
            name: item.model and (item.model.run or {}).get("params") for name, item in lineage.items()
        },
        "datasets": {
            name: sorted((use.name, use.content) for use in (item.model.datasets if item.model else ()))
            for name, item in lineage.items()
        },
        "devices": sorted((item.target, item.model, item.version) for item in reach.devices),
        "versions": sorted((item.model, item.version) for item in reach.versions),
        "diff": [
            (section.name, [(entry.name, entry.left, entry.right) for entry in section.differences])
            for section in diff.sections
            if section.name not in ("live", "device")
        ],
    }


def test_the_three_questions_and_again_when_mlflow_has_forgotten(
    server: Server, said: dict[str, str], robots: dict[str, Agent]
) -> None:
    client = server.client
    until(lambda: all(client.lineage(name).served for name in ROBOTS), "every robot to say what it serves")
    # What was never deployed is read by the registry pass.
    until(lambda: client.datasets("sensors").to_pandas().shape[0] == 3, "the plain run to be read")
    first = _answers(server, said)
    assert first["runs"] == {
        "robot-1": said["run-bad"],
        "robot-2": said["run-retrained"],
        "robot-3": said["run-bad"],
        "robot-4": said["run-tested"],
    }
    assert first["devices"] == [
        ("robot-1", "grip", "2"),
        ("robot-2", "grip", "3"),
        ("robot-3", "copied", "1"),
    ], "through a copy and a retrained child, but not by a test"
    assert first["versions"] == [("copied", "1"), ("grip", "2"), ("grip", "3")]
    assert ("sensors", said["bad"]) in first["datasets"]["robot-2"], "inherited"
    assert said["good"] != said["bad"]
    params = dict(first["diff"])["params"]
    assert params == [("depth", "5", None)]
    by_digest = client.dataset_reach(digest=said["bad"][:16])
    assert {(item.model, item.version) for item in by_digest.versions} == set(first["versions"])
    by_name = client.dataset_reach(name="sensors")
    assert {(item.model, item.version) for item in by_name.versions} > {("grip", "1"), ("other", "1")}
    tested = client.dataset_reach(content=said["bad"], any_use=True)
    assert "robot-4" in {item.target for item in tested.devices}
    lineage = client.lineage("robot-1")
    assert lineage.model is not None
    assert {gap.what for gap in lineage.model.gaps} == {"baseline"}
    assert not lineage.findings
    assert lineage.intended is not None
    assert lineage.intended.deployment == "d-robot-1"

    code = (
        "import mlflow, sys\n"
        "client = mlflow.MlflowClient()\n"
        "client.set_registered_model_alias('grip', 'champion', '1')\n"
        "client.delete_model_version('grip', '1')\n"
        "client.delete_registered_model('other')\n"
        "for run in sys.argv[1:]: client.delete_run(run)\n"
    )
    runs = [said[name] for name in ("run-good", "run-bad", "run-retrained", "run-tested")]
    command("python", "-c", code, *runs, environment=server.environment_of_clients())
    assert request("GET", f"{server.address}/api/2.0/mlflow/runs/get?run_id={said['run-bad']}").status == 200
    assert _answers(server, said) == first
    rebuilt = client.rebuild_lineage()
    assert rebuilt.bundles == 4
    assert _answers(server, said) == first


def test_the_same_from_the_command_line(
    server: Server, said: dict[str, str], robots: dict[str, Agent]
) -> None:
    def typed(*words: str, fails: bool = False) -> str:
        return command("edgeflow", *words, environment=server.environment_of_clients(), fails=fails).stdout

    text = typed("lineage", "target", "robot-2")
    assert said["run-retrained"] in text
    assert "started from logged model" in text
    assert "robot-3" in typed("lineage", "devices", "--content", said["bad"])
    assert "sensors" in typed("lineage", "datasets")
    assert "d-robot-1" in typed("lineage", "served", "robot-1")
    assert "depth" in typed("diff", "robot-1", "models:/grip/4")
    assert json.loads(typed("diff", "robot-1", "robot-3", "--json"))["left"] == "robot-1"
    assert "no such" not in typed("lineage", "graph", "version:grip/3")
    done = command(
        "edgeflow", "lineage", "devices", "--dataset", "sensorz",
        environment=server.environment_of_clients(), fails=True,
    )  # fmt: skip
    assert "lineage datasets" in done.stderr


def test_the_page_on_lineage_shows_what_these_commands_say(
    server: Server, said: dict[str, str], robots: dict[str, Agent]
) -> None:
    """The outputs in docs/lineage.md are those of this fleet; with WRITE_DOCS=1 they are written."""
    text = PAGE.read_text(encoding="utf-8")
    parts = re.split(r"(```console\n.*?```)", text, flags=re.DOTALL)
    seen = 0
    for place, part in enumerate(parts):
        if not part.startswith("```console\n"):
            continue
        line, _, shown = part.removeprefix("```console\n").removesuffix("```").partition("\n")
        words = shlex.split(line.removeprefix("$ "))
        output = command(*words, environment=server.environment_of_clients()).stdout
        output = "\n".join(item.rstrip() for item in output.splitlines()).strip("\n")
        if "WRITE_DOCS" in os.environ:
            parts[place] = f"```console\n{line}\n{output}\n```"
        else:
            assert _same_every_time(output) == _same_every_time(shown), line
        seen += 1
    assert seen == 3
    if "WRITE_DOCS" in os.environ:
        PAGE.write_text("".join(parts), encoding="utf-8")


def _same_every_time(text: str) -> list[list[str]]:
    """Without what is another in every fleet: ids, digests, times, who ran it, and how wide columns are."""
    for pattern, name in (
        (r"m-[0-9a-f]{32}", "<model>"),
        (r"[0-9a-f]{64}", "<sha256>"),
        (r"[0-9a-f]{32}", "<id>"),
        (r"\b[0-9a-f]{16}…?", "<sha256>"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d( UTC)?)?", "<time>"),
        (r"\b(commit|source|user|size_bytes)\b.*", "<figures>"),
    ):
        text = re.sub(pattern, name, text)
    # Figures of the last hour are there or not, as telemetry has come.
    return sorted(line.split() for line in text.splitlines() if line.strip() and not line.startswith("live"))


def test_a_recall_takes_the_models_back(
    server: Server, said: dict[str, str], robots: dict[str, Agent], tmp_path: Path
) -> None:
    client = server.client
    plan = client.plan_recall(content=said["bad"])
    assert {item.target: item.remedy for item in plan.devices} == {
        "robot-1": "roll_out",
        "robot-2": "roll_out",
        "robot-3": "hold",  # nothing else is registered under that name
    }
    assert {item.model: item.uri for item in plan.alternatives} == {"grip": "models:/grip/4", "copied": ""}
    done = command(
        "edgeflow", "recall", "execute", "--content", said["bad"], "--why", "a sensor lied",
        "--to", "copied=models:/grip/4", "--yes", "--wait", "60", "--json",
        environment=server.environment_of_clients(),
    )  # fmt: skip
    detail = json.loads(done.stdout)
    recall = detail["recall"]["id"]
    assert detail["recall"]["counts"] == {"corrected": 3}, detail
    for name in ROBOTS:
        assert robots[name].serves() == ("grip", "4")
        lineage = client.lineage(name)
        assert lineage.served is not None
        assert (lineage.served.model, lineage.served.version) == ("grip", "4")
        assert not (robots[name].state / "previous").exists(), "what was recalled is not kept to fall back on"
    with pytest.raises(ApiError, match="a sensor lied") as refused:
        client.change_deployment("d-robot-1", records.DeploymentChange(model_uri="models:/grip/3"))
    assert refused.value.status == 409
    page = command(
        "edgeflow", "recall", "report", recall, "--output", str(tmp_path / "report.html"),
        environment=server.environment_of_clients(),
    )  # fmt: skip
    assert page.returncode == 0
    text = (tmp_path / "report.html").read_text()
    assert "a sensor lied" in text
    assert "grip/3" in text
    report = client.recall_report(recall)
    assert {item.target for item in report.served} == {"robot-1", "robot-2", "robot-3"}
    assert {item.action for item in report.decisions} == {"recall.begin", "rollout.create"}
    assert client.lift_recall(recall, "cleaned").recall.lift_why == "cleaned"
    changed = client.change_deployment("d-robot-1", records.DeploymentChange(model_uri="models:/grip/3"))
    assert changed.rollout.number == 3
