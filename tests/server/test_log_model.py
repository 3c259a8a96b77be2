"""`log_model` on a plain SQLite tracking store: what lies in the model folder, and what is refused."""

from __future__ import annotations

import builtins
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import yaml
from onnx import TensorProto, helper
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgeflow_agent import steps
from edgeflow_mlflow import errors, log_model
from tests import harness

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's migrations take two seconds: they run once."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(autouse=True)
def tracking(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with harness.tracking(uri):
        mlflow.set_experiment("test")
        with mlflow.start_run():
            yield uri


@pytest.fixture(scope="session")
def iris() -> tuple[pd.DataFrame, pd.Series]:
    data = load_iris(as_frame=True)
    frame = data.data.set_axis(["sepal_length", "sepal_width", "petal_length", "petal_width"], axis=1)
    return frame, data.target.map(dict(enumerate(data.target_names)))


@pytest.fixture(scope="session")
def classifier(iris: tuple[pd.DataFrame, pd.Series]) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(*iris)


def graph(
    shape: list[Any], classes: int = 3, *, width: int = 4, dtype: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """Scores by one matrix product."""
    weights = helper.make_tensor("w", dtype, [width, classes], np.arange(width * classes) / 10)
    node = helper.make_node("MatMul", ["x", "w"], ["scores"])
    made = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("scores", dtype, [shape[0], classes])],
        [weights],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def folder_of(info: Any) -> Path:
    return Path(mlflow.artifacts.download_artifacts(info.model_uri))


def companion(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "extra_files" / "edgeflow.json").read_text())
    return value


def baseline(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "extra_files" / "baseline.json").read_text())
    return value


def shares(feature: dict[str, Any]) -> dict[str, int]:
    categories = feature["categories"]
    return dict(zip(categories["value"], categories["count"], strict=True))


STEPS = [
    {"step": "columns", "names": ["a", "b", "c", "d"]},
    {"step": "feed", "input": "x"},
    {"step": "labels", "output": "scores", "labels": ["x", "y", "z"], "activation": "softmax"},
]


@pytest.mark.parametrize("form", ["list", "dict", "pipeline", "path"])
def test_steps_are_stored_as_the_device_reads_them(form: str, tmp_path: Path) -> None:
    pipeline = steps.load(STEPS)
    (tmp_path / "mine.json").write_bytes(pipeline.encode())
    as_dict = {"before": STEPS[:2], "after": STEPS[2:]}
    given = {"list": STEPS, "dict": as_dict, "pipeline": pipeline, "path": tmp_path / "mine.json"}[form]
    folder = folder_of(log_model(graph([None, 4]), steps=given))
    assert (folder / "extra_files" / "steps.json").read_bytes() == pipeline.encode()
    assert companion(folder)["steps"] == "steps.json"
    mlmodel = yaml.safe_load((folder / "MLmodel").read_text())
    assert mlmodel["metadata"]["edgeflow"]["steps"] == "extra_files/steps.json"
    # The folder of the model, and the model in it, are all that a notebook needs.
    again = steps.beside(folder / "model.onnx")
    assert again == pipeline
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    feed = again.before({"a": 1, "b": 2, "c": 3, "d": 4})
    answer = again.after({"scores": session.run(None, feed)[0]}, feed)
    assert answer["scores"]["label"] == "z"


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ([{**STEPS[0], "step": "colums"}], r"before\[0\]: no step 'colums' is known here"),
        (
            [STEPS[0], {"step": "feed", "input": "X"}],
            r"before\[1\] feed: the graph has no input 'X'; it has x",
        ),
        (
            [{**STEPS[2], "output": "score"}],
            r"after\[0\] labels: there is no output 'score'; there are 'scores'",
        ),
        ([{**STEPS[2], "labels": ["x", "y"]}], "2 labels for an output of shape"),
        ("nowhere.json", "cannot be read"),
        (5, "must be an object"),
    ],
)
def test_steps_that_do_not_fit_the_graph_are_not_logged(declared: Any, words: str) -> None:
    with pytest.raises(errors.InvalidError, match=words):
        log_model(graph([None, 4]), steps=declared)
    assert mlflow.search_logged_models(output_format="list") == []


def test_without_steps_there_is_no_file() -> None:
    folder = folder_of(log_model(graph([None, 4])))
    assert companion(folder)["steps"] == ""
    assert not (folder / "extra_files" / "steps.json").exists()


def test_an_estimator_with_a_data_frame(classifier: Any, iris: tuple[pd.DataFrame, pd.Series]) -> None:
    frame, _ = iris
    info = log_model(classifier, samples=frame, registered_model_name="iris")
    assert info.registered_model_version == 1
    folder = folder_of(info)
    mlmodel = yaml.safe_load((folder / "MLmodel").read_text())
    columns = json.loads(mlmodel["signature"]["inputs"])
    assert [item["name"] for item in columns] == list(frame.columns)
    assert {item["type"] for item in columns} == {"double"}
    assert mlmodel["metadata"]["edgeflow"]["labels"] == ["setosa", "versicolor", "virginica"]
    facts = companion(folder)
    assert facts["labels"] == ["setosa", "versicolor", "virginica"]
    assert facts["columns"] == list(frame.columns)
    assert facts["inputs"] == [{"name": "input", "dtype": "float", "shape": [None, 4]}]
    assert [item["name"] for item in facts["outputs"]] == ["label", "probabilities"]
    assert facts["baseline"] == "baseline.json"
    assert not list(folder.glob("*.data"))  # one file, no randomly named ones

    found = baseline(folder)
    assert [item["name"] for item in found["inputs"]] == list(frame.columns)
    for index, item in enumerate(found["inputs"]):
        assert item["source"] == {"input": "input", "column": index}
        assert item["mean"] == pytest.approx(frame.iloc[:, index].mean())
    outputs = {item["name"]: item for item in found["outputs"]}
    assert outputs.keys() == {"label.class", "probabilities.top", "probabilities.margin"}
    assert shares(outputs["label.class"]) == Counter(classifier.predict(frame).tolist())
    top = classifier.predict_proba(frame).max(axis=1)
    assert outputs["probabilities.top"]["mean"] == pytest.approx(top.mean(), abs=1e-5)


def test_mlflow_itself_loads_and_serves_what_was_logged(iris: tuple[pd.DataFrame, pd.Series]) -> None:
    frame, _ = iris
    target = frame.sum(axis=1)
    info = log_model(LinearRegression().fit(frame, target), samples=frame)
    onnx.checker.check_model(mlflow.onnx.load_model(info.model_uri))
    answer = mlflow.pyfunc.load_model(info.model_uri).predict(frame)
    assert answer["variable"].to_numpy() == pytest.approx(target.to_numpy(), abs=1e-3)


def test_an_array_with_and_without_names(iris: tuple[pd.DataFrame, pd.Series]) -> None:
    frame, species = iris
    model = LogisticRegression(max_iter=500).fit(frame.to_numpy(), species)
    named = folder_of(log_model(model, samples=frame.to_numpy(), columns=list(frame.columns)))
    assert companion(named)["columns"] == list(frame.columns)
    assert [item["name"] for item in baseline(named)["inputs"]] == list(frame.columns)
    plain = folder_of(log_model(model, samples=frame.to_numpy()))
    assert companion(plain)["columns"] == []
    assert [item["name"] for item in baseline(plain)["inputs"]] == [f"input.{index}" for index in range(4)]
    tensor = json.loads(yaml.safe_load((plain / "MLmodel").read_text())["signature"]["inputs"])
    assert tensor[0]["type"] == "tensor"


def test_a_regressor(iris: tuple[pd.DataFrame, pd.Series]) -> None:
    frame, _ = iris
    target = frame.pop("petal_width") if "petal_width" in frame else None
    assert target is not None
    model = LinearRegression().fit(frame, target)
    folder = folder_of(log_model(model, samples=frame))
    frame["petal_width"] = target
    assert companion(folder)["labels"] == []
    (output,) = baseline(folder)["outputs"]
    assert output["name"] == "variable.value"
    assert output["mean"] == pytest.approx(target.mean(), abs=1e-4)


def test_a_ready_made_model_and_its_path(tmp_path: Path) -> None:
    model = graph(["batch", 4])
    path = tmp_path / "m.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="m.bin", size_threshold=0)
    samples = np.random.default_rng(1).normal(size=(700, 4))
    folders = [
        folder_of(log_model(item, samples=samples, labels=["a", "b", "c"]))
        for item in (model, path, str(path))
    ]
    for folder in folders:
        assert sorted(item.name for item in folder.glob("*.*nx*")) == ["model.onnx"]
        assert companion(folder)["inputs"] == [{"name": "x", "dtype": "float", "shape": ["batch", 4]}]
        outputs = {item["name"]: item for item in baseline(folder)["outputs"]}
        scores = samples @ (np.arange(12) / 10).reshape(4, 3)
        expected = Counter(np.array(["a", "b", "c"])[scores.argmax(axis=1)].tolist())
        assert shares(outputs["scores.class"]) == expected
    files = [(folder / "extra_files" / "baseline.json").read_bytes() for folder in folders]
    assert files[0] == files[1] == files[2]


def test_without_samples_there_is_no_baseline() -> None:
    folder = folder_of(log_model(graph(["n", 4]), labels=[0, 1, 2]))
    assert companion(folder)["labels"] == ["0", "1", "2"]
    assert companion(folder)["baseline"] == ""
    assert not (folder / "extra_files" / "baseline.json").exists()


def test_a_fixed_batch_is_run_in_whole_batches() -> None:
    samples = np.random.default_rng(1).normal(size=(10, 4))
    folder = folder_of(log_model(graph([4, 4]), samples=samples))
    outputs = {item["name"]: item for item in baseline(folder)["outputs"]}
    assert outputs["scores.top"]["n"] == 8
    assert baseline(folder)["inputs"][0]["n"] == 10


def test_the_baseline_has_the_numbers_that_the_graph_takes() -> None:
    steps = np.random.default_rng(1).integers(0, 8, size=(500, 4)) / 10
    for samples in (steps, pd.DataFrame(steps, columns=list("abcd"))):
        found = baseline(folder_of(log_model(graph(["n", 4]), samples=samples)))
        # A device sees 0.1 as the nearest number of 32 bits: that must be no value that nobody has seen.
        assert found["inputs"][0]["discrete"]["value"] == [float(np.float32(step / 10)) for step in range(8)]


def test_many_samples_are_run_in_part() -> None:
    samples = np.random.default_rng(1).normal(size=(30_000, 4)).astype(np.float32)
    folder = folder_of(log_model(graph(["n", 4]), samples=samples))
    assert baseline(folder)["inputs"][0]["n"] == 30_000
    assert baseline(folder)["outputs"][0]["n"] == 10_000


def test_images_and_several_inputs() -> None:
    node = helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0)
    add = helper.make_node("Add", ["mean", "bias"], ["value"])
    made = helper.make_graph(
        [node, add],
        "g",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8]),
            helper.make_tensor_value_info("bias", TensorProto.FLOAT, ["n"]),
        ],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    rng = np.random.default_rng(1)
    samples = {"image": rng.uniform(size=(20, 3, 8, 8)), "bias": rng.normal(size=20)}
    found = baseline(folder_of(log_model(model, samples=samples)))
    names = [item["name"] for item in found["inputs"]]
    assert names == [f"image.{word}.{channel}" for channel in range(3) for word in ("mean", "std")] + [
        "image.sharpness",
        "bias.0",
    ]
    assert [item["name"] for item in found["outputs"]] == ["value.value"]


def test_what_the_caller_gives_is_kept(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    folder = folder_of(
        log_model(
            graph(["n", 4]),
            name="mine",
            samples=np.ones((3, 4)),
            extra_files=[str(tmp_path / "note.txt")],
            metadata={"team": "robots"},
            pip_requirements=["onnxruntime"],
            outputs={"scores": np.array([[0.1, 0.2, 0.7]] * 3)},
        )
    )
    assert (folder / "extra_files" / "note.txt").read_text() == "hello"
    mlmodel = yaml.safe_load((folder / "MLmodel").read_text())
    assert mlmodel["metadata"]["team"] == "robots"
    assert baseline(folder)["outputs"][1]["mean"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("no-such-file.onnx", {}, "cannot be read as an ONNX model"),
        (object(), {}, "export the model to ONNX first"),
        (LogisticRegression(), {}, "not fitted"),
        (graph(["n", 4]), {"labels": ["a", "a", "b"]}, "same name"),
        (graph(["n", 4]), {"labels": ["a", "b"]}, "2 labels for a model that scores 3 classes"),
        (graph(["n", 4]), {"samples": pd.DataFrame(np.ones((2, 5)))}, "takes 4 columns, the samples have 5"),
        (graph(["n", 4]), {"samples": pd.DataFrame(np.ones((0, 4)))}, "empty"),
        (graph(["n", 4]), {"samples": np.ones((0, 4))}, "empty"),
        (graph(["n", 4]), {"samples": np.ones((2, 3))}, "does not run on its samples"),
        (graph(["n", 4]), {"samples": np.ones((2, 4)), "columns": ["a"]}, "1 column names for samples of 4"),
        (graph(["n", 4]), {"samples": {"y": np.ones((2, 4))}}, "the model has the inputs"),
        (graph(["n", 4]), {"samples": pd.DataFrame([["a", 1, 1, 1]])}, "cannot be given to the input 'x'"),
        (graph(["n", 4]), {"samples": pd.DataFrame(np.ones((2, 4)), columns=list("aabc"))}, "same name"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_logged(
    model: Any, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.InvalidError, match=message):
        log_model(model, **more)
    assert mlflow.search_logged_models(output_format="list") == []


def test_a_missing_converter_says_what_to_install(classifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("skl2onnx"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(errors.InvalidError, match=r"pip install 'edgeflow-mlflow\[sklearn\]'"):
        log_model(classifier)


@pytest.mark.parametrize("estimator", ["logistic", "forest"])
def test_the_example_trains_logs_and_registers(tracking: str, tmp_path: Path, estimator: str) -> None:
    ended = subprocess.run(
        [
            sys.executable,
            str(ROOT / "examples" / "train_iris.py"),
            *("--tracking-uri", tracking),
            *("--estimator", estimator),
        ],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "model models:/iris/1\n" in ended.stdout
    version = mlflow.MlflowClient().get_model_version("iris", "1")
    assert f"run {version.run_id}\n" in ended.stdout
    run = mlflow.get_run(version.run_id)
    assert run.data.metrics["accuracy"] > 0.85
    assert {item.dataset.name for item in run.inputs.dataset_inputs} == {"iris-training", "iris-testing"}
