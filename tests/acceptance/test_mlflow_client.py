"""The unchanged mlflow client against our server: each part of it does what MLflow says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from tests.harness import Server, command, tracking


@pytest.fixture
def client(server: Server) -> Iterator[mlflow.MlflowClient]:
    with tracking(server.address):
        yield mlflow.MlflowClient()


def test_experiments(client: mlflow.MlflowClient) -> None:
    made = client.create_experiment("exp", tags={"team": "arms"})
    assert client.get_experiment(made).tags["team"] == "arms"
    client.rename_experiment(made, "exp-renamed")
    assert client.get_experiment_by_name("exp-renamed").experiment_id == made
    client.delete_experiment(made)
    assert client.get_experiment(made).lifecycle_stage == "deleted"
    client.restore_experiment(made)
    assert made in [item.experiment_id for item in client.search_experiments()]


def test_runs_params_metrics_tags(client: mlflow.MlflowClient) -> None:
    mlflow.set_experiment("runs")
    with mlflow.start_run(run_name="one") as run:
        mlflow.log_params({"lr": 0.1, "depth": 3})
        for step in range(5):
            mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
        mlflow.set_tag("stage", "try")
    found = client.get_run(run.info.run_id)
    assert found.data.params == {"lr": "0.1", "depth": "3"}
    assert found.data.metrics["loss"] == pytest.approx(0.2)
    assert [item.step for item in client.get_metric_history(run.info.run_id, "loss")] == list(range(5))
    (only,) = mlflow.search_runs(experiment_names=["runs"], filter_string="params.depth = '3'").run_id
    assert only == run.info.run_id


def test_artifacts(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(range(256)) * 4096 * 4)  # larger than any JSON body may be
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(big))
        mlflow.log_dict({"a": 1}, "inner/a.json")
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"big.bin", "inner"}
    big = big.rename(tmp_path / "original.bin")
    back = client.download_artifacts(run.info.run_id, "big.bin", str(tmp_path))
    assert Path(back).read_bytes() == big.read_bytes()
    assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/inner/a.json") == {"a": 1}


def test_datasets(client: mlflow.MlflowClient) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]})
    with mlflow.start_run() as run:
        mlflow.log_input(mlflow.data.from_pandas(frame, name="threes"), context="training")
    (found,) = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert found.dataset.name == "threes"
    assert {tag.key: tag.value for tag in found.tags}["mlflow.data.context"] == "training"


def test_registry_and_aliases(client: mlflow.MlflowClient) -> None:
    client.create_registered_model("reg", tags={"k": "v"}, description="first")
    with mlflow.start_run() as run:
        mlflow.log_text("x", "model/MLmodel")
    source = f"{run.info.artifact_uri}/model"
    made = client.create_model_version("reg", source, run.info.run_id, tags={"t": "1"})
    assert (made.version, made.tags) == ("1", {"t": "1"})
    client.update_model_version("reg", "1", description="better")
    client.set_registered_model_alias("reg", "champion", "1")
    assert client.get_model_version_by_alias("reg", "champion").version == "1"
    client.set_model_version_tag("reg", "1", "x", "y")
    assert client.get_model_version("reg", "1").tags == {"t": "1", "x": "y"}, "we add no tags of our own"
    client.delete_registered_model_alias("reg", "champion")
    assert [item.version for item in client.search_model_versions("name='reg'")] == ["1"]
    client.rename_registered_model("reg", "reg2")
    client.delete_model_version("reg2", "1")
    client.delete_registered_model("reg2")
    with pytest.raises(MlflowException) as caught:
        client.get_registered_model("reg2")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_prompts_are_left_alone(client: mlflow.MlflowClient) -> None:
    prompt = mlflow.genai.register_prompt(name="greet", template="Hello {{name}}")
    assert mlflow.genai.load_prompt("greet", version=prompt.version).format(name="Ada") == "Hello Ada"


def test_logged_models_and_traces(client: mlflow.MlflowClient) -> None:
    @mlflow.trace
    def add(left: int, right: int) -> int:
        return left + right

    mlflow.set_experiment("traces")
    assert add(1, 2) == 3
    mlflow.flush_trace_async_logging()
    experiment = client.get_experiment_by_name("traces")
    assert experiment is not None
    assert len(client.search_traces([experiment.experiment_id])) == 1
    model = client.create_logged_model(experiment.experiment_id, name="m")
    assert client.get_logged_model(model.model_id).name == "m"


def test_the_command_line(server: Server) -> None:
    environment = server.environment_of_clients()
    done = command("mlflow", "experiments", "search", environment=environment)
    assert "Default" in done.stdout
    done = command("mlflow", "runs", "list", "--experiment-id", "0", environment=environment)
    assert done.returncode == 0


def test_the_page_of_mlflow_is_served(server: Server) -> None:
    from tests.harness import request

    page = request("GET", server.address)
    assert page.status == 200
    assert b'id="root"' in page.body
    assert json.loads(request("GET", f"{server.api}/health").body)["status"] == "ok"
