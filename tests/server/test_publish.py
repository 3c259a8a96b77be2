"""What can go to a device, what cannot and why: real ONNX files, good, broken and hostile."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeflow_agent.wire import documents
from edgeflow_mlflow import catalog, errors
from edgeflow_mlflow.config import Config
from edgeflow_mlflow.services import onnx_scan, publish
from edgeflow_mlflow.services.state import State

ORIGIN = publish.Origin(name="m", version="1", model_id="", run_id="", source="somewhere")


def value(name: str, kind: int = TensorProto.FLOAT, shape: tuple[Any, ...] = ("n", 2)) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(*nodes: Any, inputs: Any = None, outputs: Any = None, initializers: Any = (), **more: Any) -> Any:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        inputs or [value("x")],
        outputs or [value("y")],
        list(initializers),
    )
    opsets = more.pop("opset_imports", [helper.make_opsetid("", 17)])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)


def save(folder: Path, made: Any, name: str = "model.onnx") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(made.SerializeToString())
    return name


def external(location: str, offset: str = "0", length: str = "16") -> Any:
    tensor = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", offset), ("length", length)):
        item = tensor.external_data.add()
        item.key, item.value = key, text
    return tensor


def with_weights(tensor: Any) -> Any:
    return model(helper.make_node("MatMul", ["x", "w"], ["y"]), initializers=[tensor])


def test_a_good_model_with_external_weights(tmp_path: Path, state: State) -> None:
    entry = save(tmp_path, with_weights(external("weights.bin")))
    (tmp_path / "weights.bin").write_bytes(np.ones(4, np.float32).tobytes())
    (tmp_path / "README.md").write_text("not part of it")
    bundle = publish.publish(
        state, ORIGIN, tmp_path, entry=entry, columns=(), labels=("no", "yes"), baseline="", lineage={}
    )
    assert [item["path"] for item in bundle.files] == ["model.onnx", "weights.bin"]
    interface = documents.from_builtins(documents.Interface, bundle.interface)
    assert interface.inputs == (documents.TensorSpec(name="x", dtype="tensor(float)", shape=("n", 2)),)
    assert interface.labels == ("no", "yes")
    assert all(state.blobs.find(item["sha256"]) for item in bundle.files)
    known = publish.known(state, ORIGIN)
    assert known is not None
    assert known.id == bundle.id


STEPS = b'{"before": [{"step": "columns", "names": ["a", "b"]}, {"step": "feed", "input": "x"}]}'


def test_steps_go_into_the_bundle(tmp_path: Path, state: State) -> None:
    entry = save(tmp_path, model())
    (tmp_path / "extra_files").mkdir()
    (tmp_path / "extra_files" / "steps.json").write_bytes(STEPS)
    (tmp_path / "MLmodel").write_text(ONNX)
    described = catalog.describe(tmp_path)
    assert described.steps == "extra_files/steps.json"
    more: dict[str, Any] = {"entry": entry, "columns": (), "labels": (), "baseline": "", "lineage": {}}
    plain = publish.publish(state, ORIGIN, tmp_path, **more)
    bundle = publish.publish(state, ORIGIN, tmp_path, steps=described.steps, **more)
    assert [item["path"] for item in bundle.files] == ["model.onnx", "steps.json"]
    assert bundle.digest != plain.digest
    stored = state.blobs.find(bundle.files[1]["sha256"])
    assert stored is not None
    assert stored.read_bytes() == STEPS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no JSON", "the document is not JSON"),
        (b" " * (2**20 + 1), "over 1048576 bytes"),
        (STEPS.replace(b'"x"', b'"y"'), r"before\[1\] feed: the graph has no input 'y'"),
        (STEPS.replace(b'"a", ', b""), "gives 1 along axis 1, and the graph takes 2"),
    ],
)
def test_steps_that_do_not_fit_never_reach_a_device(tmp_path: Path, content: bytes, words: str) -> None:
    entry = save(tmp_path, model())
    (tmp_path / "steps.json").write_bytes(content)
    with pytest.raises(errors.UnprocessableError, match=words):
        publish.check(tmp_path, entry, steps="steps.json")


def test_weights_do_not_take_the_place_of_what_comes_with_a_model(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_bytes(np.ones(4, np.float32).tobytes())
    entry = save(tmp_path, with_weights(external("steps.json")))
    with pytest.raises(errors.UnprocessableError, match=r"weights are in 'steps\.json'"):
        publish.check(tmp_path, entry)
    with pytest.raises(errors.UnprocessableError, match="cannot be used"):
        publish.check(tmp_path, save(tmp_path, model(), "steps.json"))


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/b", ".hidden", "", "w\x00x", "*"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(b"0" * 16)
    entry = save(tmp_path / "inner", with_weights(external(location)))
    with pytest.raises(errors.UnprocessableError, match="not a file beside the model"):
        publish.check(tmp_path / "inner", entry)


def test_weights_that_are_missing_linked_or_too_short_are_refused(tmp_path: Path) -> None:
    entry = save(tmp_path, with_weights(external("weights.bin")))
    with pytest.raises(errors.UnprocessableError, match="missing"):
        publish.check(tmp_path, entry)
    (tmp_path / "other").write_bytes(b"0" * 16)
    (tmp_path / "weights.bin").symlink_to(tmp_path / "other")
    with pytest.raises(errors.UnprocessableError, match="missing"):
        publish.check(tmp_path, entry)
    for offset, length in (("8", "16"), ("-8", "8"), ("0", "99999999999999999999"), ("x", "1")):
        (tmp_path / "weights.bin").unlink(missing_ok=True)
        (tmp_path / "weights.bin").write_bytes(b"0" * 16)
        entry = save(tmp_path, with_weights(external("weights.bin", offset, length)))
        with pytest.raises(errors.UnprocessableError, match=r"lies outside|no readable place"):
            publish.check(tmp_path, entry)


def test_weights_hidden_in_a_nested_graph_are_found(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["b"], value=external("../secret"))], "b", [], [value("b")]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    entry = save(tmp_path, model(node, inputs=[value("c", TensorProto.BOOL, ())]))
    with pytest.raises(errors.UnprocessableError, match="not a file beside"):
        publish.check(tmp_path, entry)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            model(
                helper.make_node("Evil", ["x"], ["y"], domain="com.example"),
                opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)],
            ),
            "com.example::Evil",
        ),
        (
            model(
                helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft"),
                opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
            ),
            "EPContext",
        ),
        (
            model(
                helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16),
                outputs=[value("y", TensorProto.BFLOAT16)],
            ),
            "bfloat16",
        ),
    ],
)
def test_what_no_device_could_run_is_refused_with_the_reason(tmp_path: Path, made: Any, words: str) -> None:
    with pytest.raises(errors.UnprocessableError, match=words):
        publish.check(tmp_path, save(tmp_path, made))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", bytes(range(256)) * 8])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(errors.UnprocessableError):
        publish.check(tmp_path, "model.onnx")


def test_a_reader_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = save(tmp_path, model())
    monkeypatch.setattr(onnx_scan, "WALL_S", 0.01)
    with pytest.raises(errors.UnprocessableError, match="could not be read within"):
        publish.check(tmp_path, entry)


def test_a_model_over_the_limit_is_refused(tmp_path: Path, state: State) -> None:
    small = dataclasses.replace(state, config=Config({**state.config.values, "limits.model_mb": 0}))
    with pytest.raises(errors.UnprocessableError, match="model_mb"):
        publish.publish(
            small,
            ORIGIN,
            tmp_path,
            entry=save(tmp_path, model()),
            columns=(),
            labels=(),
            baseline="",
            lineage={},
        )


def test_a_zipmap_output_is_fine(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]], np.float32)
    made = to_onnx(LogisticRegression().fit(rows, [0, 1, 1]), rows)
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    scan = publish.check(tmp_path, "model.onnx")
    assert [item["dtype"] for item in scan.outputs] == ["tensor(int64)", "seq(map)"]
    onnx.checker.check_model(made)


# ---- what the MLmodel file says


def folder_with(tmp_path: Path, mlmodel: str) -> Path:
    (tmp_path / "MLmodel").write_text(mlmodel)
    save(tmp_path, model())
    return tmp_path


ONNX = "flavors:\n  onnx:\n    data: model.onnx\n"


def test_a_folder_without_an_onnx_flavor_says_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(errors.UnprocessableError, match="no MLmodel file"):
        catalog.describe(tmp_path)
    folder_with(tmp_path, "flavors:\n  sklearn: {}\n  python_function: {}\n")
    with pytest.raises(errors.UnprocessableError, match="flavor sklearn"):
        catalog.describe(tmp_path)
    folder_with(tmp_path, "flavors: [\n")
    with pytest.raises(errors.UnprocessableError, match="cannot be read"):
        catalog.describe(tmp_path)
    folder_with(tmp_path, ONNX.replace("model.onnx", "gone.onnx"))
    with pytest.raises(errors.UnprocessableError, match="missing"):
        catalog.describe(tmp_path)


def test_columns_labels_and_baseline(tmp_path: Path) -> None:
    signature = 'signature:\n  inputs: \'[{"type": "double", "name": "a"}, {"type": "long", "name": "b"}]\'\n'
    found = catalog.describe(folder_with(tmp_path, ONNX + signature))
    assert [item["name"] for item in found.columns] == ["a", "b"]
    assert found.labels == ()
    assert found.baseline == ""
    (tmp_path / "extra_files").mkdir()
    (tmp_path / "extra_files" / "baseline.json").write_text("{}")
    (tmp_path / "extra_files" / "edgeflow.json").write_text('{"labels": ["no", "yes"]}')
    found = catalog.describe(tmp_path)
    assert found.labels == ("no", "yes")
    assert found.baseline == "extra_files/baseline.json"


def test_a_tensor_signature_has_no_columns(tmp_path: Path) -> None:
    signature = 'signature:\n  inputs: \'[{"type": "tensor", "tensor-spec": {}, "name": "x"}]\'\n'
    assert catalog.describe(folder_with(tmp_path, ONNX + signature)).columns == ()
