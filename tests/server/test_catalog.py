"""Reading MLflow: which model a URI means, what its folder says, and how little is copied to find out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from edgeflow_mlflow import ancestry, catalog, errors
from edgeflow_mlflow.catalog import Catalog, Model
from tests.harness import tracking

ONNX = "flavors:\n  onnx:\n    data: model.onnx\n"


class Recording(LocalArtifactRepository):  # type: ignore[misc]
    """MLflow's own local store, which writes down what it is asked to copy."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.copied: list[str] = []

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self.copied.append(remote_file_path)
        super()._download_file(remote_file_path, local_path)


def of_folder(place: Any, *, base: str = "", max_bytes: int | None = None) -> Catalog:
    def never() -> Any:
        raise AssertionError("not asked here")

    return Catalog(tracking=never, registry=never, repository=lambda uri: (place, base), max_bytes=max_bytes)


def fetch(place: Any, into: Path, **more: Any) -> catalog.Description:
    into.mkdir()
    return of_folder(place, **more).fetch(Model(name="m", version="1", artifact_uri="somewhere"), into)


def model_folder(folder: Path, mlmodel: str = ONNX) -> Path:
    (folder / "extra_files").mkdir(parents=True)
    (folder / "MLmodel").write_text(mlmodel)
    (folder / "model.onnx").write_bytes(b"0" * 1000)
    (folder / "weights.bin").write_bytes(b"0" * 1000)
    (folder / "extra_files" / "edgeflow.json").write_text('{"labels": ["no", "yes"]}')
    (folder / "extra_files" / "other.bin").write_bytes(b"0" * 5000)
    (folder / "data").mkdir()
    (folder / "data" / "training.csv").write_bytes(b"0" * 5000)
    return folder


@pytest.mark.parametrize("base", ["", "1/models/m-1/artifacts"])
def test_only_what_a_bundle_can_hold_is_copied(tmp_path: Path, base: str) -> None:
    model_folder(tmp_path / "store" / base)
    place = Recording(tmp_path / "store")
    found = fetch(place, tmp_path / "into", base=base, max_bytes=3000)
    assert (found.entry, found.labels) == ("model.onnx", ("no", "yes"))
    names = {str(path.relative_to(tmp_path / "into")) for path in (tmp_path / "into").rglob("*.*")}
    assert names == {"model.onnx", "weights.bin", "extra_files/edgeflow.json"}


def test_a_model_that_cannot_go_to_a_device_is_not_copied(tmp_path: Path) -> None:
    place = Recording(model_folder(tmp_path / "store", "flavors:\n  sklearn: {}\n"))
    with pytest.raises(errors.UnprocessableError, match="flavor sklearn"):
        fetch(place, tmp_path / "into")
    assert place.copied == ["MLmodel"]


def test_a_model_over_the_limit_is_not_copied(tmp_path: Path) -> None:
    place = Recording(model_folder(tmp_path / "store"))
    with pytest.raises(errors.UnprocessableError, match="model_mb"):
        fetch(place, tmp_path / "into", max_bytes=2000)
    assert place.copied == ["MLmodel"]


def test_a_store_that_gives_nothing_says_nothing_about_the_model(tmp_path: Path) -> None:
    class Away:
        def list_artifacts(self, path: str | None) -> Any:
            raise RuntimeError("An error occurred (SlowDown) when calling the ListObjects operation")

    for place in (Away(), Recording(tmp_path / "not-mounted")):
        with pytest.raises(catalog.UnreadableError):
            fetch(place, tmp_path / type(place).__name__)


@pytest.mark.parametrize(
    ("mlmodel", "words"),
    [
        ("flavors: {onnx: null}\n", "flavors.onnx of the MLmodel file holds nothing"),
        ("flavors: {onnx: [1]}\n", "flavors.onnx of the MLmodel file holds a list"),
        ("flavors: [onnx]\n", "flavors of the MLmodel file holds a list"),
        ("flavors: {onnx: {data: 5}}\n", "flavors.onnx.data of the MLmodel file holds a int"),
        ("flavors: {onnx: {data: ../model.onnx}}\n", "cannot be used on a device"),
        (f"{ONNX}metadata: [1]\n", "metadata of the MLmodel file holds a list"),
        (f"{ONNX}metadata: {{edgeflow: 5}}\n", "metadata.edgeflow of the MLmodel file holds a int"),
        (f"{ONNX}metadata: {{edgeflow: {{labels: 5}}}}\n", "labels of the model are not a list"),
        (f"{ONNX}metadata: {{edgeflow: {{labels: [[1]]}}}}\n", "labels of the model are not a list"),
        (f"{ONNX}signature: []\n", "signature of the MLmodel file holds a list"),
        (f"{ONNX}signature: {{inputs: 5}}\n", "signature.inputs of the MLmodel file holds a int"),
        ("[1]\n", "the MLmodel file holds a list"),
        ("", "the MLmodel file holds nothing"),
        ("5: {}\n", "flavor none"),
        ("flavors: {5: {}, sklearn: {}}\n", "flavor 5, sklearn"),
        ("a: \x00\n", "cannot be read"),
        ("[" * 5000, "cannot be read"),
    ],
)
def test_an_odd_mlmodel_file_is_refused_with_its_place(tmp_path: Path, mlmodel: str, words: str) -> None:
    with pytest.raises(errors.UnprocessableError, match=words):
        fetch(Recording(model_folder(tmp_path / "store", mlmodel)), tmp_path / "into")


@pytest.mark.parametrize("inputs", ["5", "{}", "[5]", '[{"name": []}]', "[{", '"x"'])
def test_an_odd_signature_has_no_columns(tmp_path: Path, inputs: str) -> None:
    mlmodel = f"{ONNX}signature:\n  inputs: '{inputs}'\n"
    assert fetch(Recording(model_folder(tmp_path / "store", mlmodel)), tmp_path / "into").columns == ()


# ---- on MLflow's own database


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlflow.MlflowClient]:
    folder = tmp_path_factory.mktemp("mlflow")
    with tracking(f"sqlite:///{folder}/mlflow.db"):
        found = mlflow.MlflowClient()
        found.create_experiment("e", artifact_location=str(folder / "artifacts"))
        mlflow.set_experiment("e")
        yield found


@pytest.fixture
def read(client: mlflow.MlflowClient) -> Catalog:
    from mlflow.tracking._model_registry.utils import _get_store as registry_store
    from mlflow.tracking._tracking_service.utils import _get_store as tracking_store

    return Catalog(tracking=tracking_store, registry=registry_store, repository=lambda uri: (None, uri))


def test_a_path_of_a_run_means_the_newest_model_of_that_name(
    client: mlflow.MlflowClient, read: Catalog
) -> None:
    with mlflow.start_run() as run:
        made = [mlflow.create_external_model(name="model", source_run_id=run.info.run_id) for _ in range(3)]
        other = mlflow.create_external_model(name="other", source_run_id=run.info.run_id)
        mlflow.log_outputs(models=[mlflow.entities.LoggedModelOutput(item.model_id, 0) for item in made])
        mlflow.log_outputs(models=[mlflow.entities.LoggedModelOutput(other.model_id, 0)])
    uri = f"runs:/{run.info.run_id}/model"
    assert len({item.creation_timestamp for item in made}) > 1
    assert read.resolve(uri).model_id == made[-1].model_id
    client.delete_logged_model(made[-1].model_id)
    assert read.resolve(uri).model_id == made[-2].model_id


def test_metrics_that_are_no_numbers_are_none(client: mlflow.MlflowClient, read: Catalog) -> None:
    with mlflow.start_run() as run:
        made = mlflow.create_external_model(name="m", source_run_id=run.info.run_id)
        mlflow.log_metrics({"loss": math.nan, "accuracy": 0.5})
    found = read.lineage(read.resolve(f"models:/{made.model_id}"))
    assert found["run"]["metrics"] == {"loss": None, "accuracy": 0.5}
    assert ancestry.run_facts(client.get_run(run.info.run_id))["metrics"]["loss"] is None


def test_metrics_of_a_logged_model_that_are_no_numbers_are_none() -> None:
    # MLflow's own SQL store makes them 0.0; another one may give them as they are.
    metrics = [SimpleNamespace(key="loss", value=math.inf), SimpleNamespace(key="accuracy", value=0.5)]
    logged = SimpleNamespace(model_id="m-1", name="m", experiment_id="1", params={}, metrics=metrics)
    logged.source_run_id = ""
    store = SimpleNamespace(get_logged_model=lambda model_id: logged)
    read = Catalog(tracking=lambda: store, registry=lambda: None, repository=lambda uri: (None, uri))
    found = read.lineage(Model(name="m", version="m-1", artifact_uri="", model_id="m-1"))
    assert found["logged_model"]["metrics"] == {"loss": None, "accuracy": 0.5}
