"""The registry hook and the pass on MLflow's own SQL stores: what is wrong with one stops no other."""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import onnx
import pytest
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from onnx import TensorProto, helper

from edgeflow_mlflow.catalog import Catalog
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.engine import Database
from edgeflow_mlflow.plugin import registry_pass
from edgeflow_mlflow.plugin.registry_hook import PROMPT_TAG, RegistryHook
from edgeflow_mlflow.plugin.registry_pass import RegistryPass
from edgeflow_mlflow.services import deploy, revisions
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock, add_target

ONNX = "flavors:\n  onnx:\n    data: model.onnx\n"


class Shop(LocalArtifactRepository):  # type: ignore[misc]
    """MLflow's local store; what lies under `away` fails as S3's client does."""

    def list_artifacts(self, path: str | None = None) -> Any:
        if "away" in self.artifact_uri and (Path(self.artifact_dir) / "CLOSED").exists():
            raise RuntimeError("An error occurred (SlowDown) when calling the ListObjectsV2 operation")
        return super().list_artifacts(path)


@pytest.fixture(scope="module")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def registry(mlflow_database: str) -> Iterator[Any]:
    """MLflow's registry as its server has it, emptied after each test."""
    store = SqlAlchemyStore(mlflow_database)
    yield store
    store.__class__ = SqlAlchemyStore
    for row in store.search_registered_models(max_results=100):
        store.delete_registered_model(row.name)


@pytest.fixture
def hook(registry: Any, state: State) -> RegistryHook:
    made = RegistryHook(state)
    made.wrap(registry)
    return made


@pytest.fixture
def run_pass(registry: Any, state: State) -> RegistryPass:
    read = Catalog(
        tracking=lambda: mlflow.MlflowClient(),
        registry=lambda: registry,
        repository=lambda uri: (Shop(uri), ""),
    )
    return RegistryPass(state, read)


def model_folder(folder: Path, mlmodel: str = ONNX) -> str:
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text(mlmodel)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, folder / "model.onnx")
    return str(folder)


def verdicts(state: State) -> dict[tuple[str, str], str]:
    with state.database.read() as session:
        return {
            (row.model_name, row.model_version): row.verdict for row in session.query(models.Verdict).all()
        }


def message(state: State, name: str, version: str = "1") -> str:
    with state.database.read() as session:
        return session.get_one(models.Verdict, (name, version)).message


class Broken(Database):
    """A database that is away."""

    def __init__(self) -> None:
        pass

    def write(self) -> Any:
        raise RuntimeError("the database is away")

    def read(self) -> Any:
        raise RuntimeError("the database is away")


# ---- the hook


def test_what_mlflow_has_done_is_not_undone_by_our_own_notes(
    registry: Any, state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    RegistryHook(dataclasses.replace(state, database=Broken())).wrap(registry)
    registry._edgeflow_hook.before_delete = lambda name, version: None
    source = model_folder(tmp_path / "m")
    registry.create_registered_model("m")
    assert registry.create_model_version("m", source).version == 1
    assert registry.rename_registered_model("m", "n").name == "n"
    registry.delete_model_version("n", "1")
    registry.delete_registered_model("n")
    assert caplog.text.count("the database is away") >= 4


def test_a_verdict_ends_with_its_version_and_never_speaks_of_another(
    registry: Any, hook: RegistryHook, state: State, tmp_path: Path, run_pass: RegistryPass
) -> None:
    good, bad = model_folder(tmp_path / "good"), model_folder(tmp_path / "bad", "flavors: {sklearn: {}}\n")
    registry.create_registered_model("m")
    registry.create_model_version("m", good)
    registry.create_model_version("m", bad)
    run_pass()
    assert verdicts(state) == {("m", "1"): "deployable", ("m", "2"): "not_deployable"}
    registry.delete_model_version("m", "2")
    assert verdicts(state) == {("m", "1"): "deployable"}
    registry.delete_registered_model("m")
    assert verdicts(state) == {}

    registry.create_registered_model("m")
    with state.database.write() as session:  # left over: the deletion could not be noted
        row = models.Verdict(
            model_name="m", model_version="1", verdict="deployable", message="of old",
            created_at=state.now(), updated_at=state.now(),
        )  # fmt: skip
        session.add(row)
    registry.create_model_version("m", bad)
    assert verdicts(state) == {("m", "1"): "pending"}
    assert message(state, "m") == ""


def test_renaming_to_a_name_that_was_used_before(
    registry: Any, hook: RegistryHook, state: State, tmp_path: Path
) -> None:
    for name in ("old", "new"):
        registry.create_registered_model(name)
        registry.create_model_version(name, model_folder(tmp_path / name))
    SqlAlchemyStore.delete_registered_model(registry, "new")  # by somebody without the hook
    registry.rename_registered_model("old", "new")
    assert verdicts(state) == {("new", "1"): "pending"}


# ---- the pass


def test_one_odd_version_does_not_stop_the_others(
    registry: Any, hook: RegistryHook, state: State, tmp_path: Path, run_pass: RegistryPass, clock: Clock
) -> None:
    sources = {
        "a-null": model_folder(tmp_path / "null", "flavors: {onnx: null}\n"),
        "b-list": model_folder(tmp_path / "list", "flavors: [onnx]\n"),
        "c-away": model_folder(tmp_path / "away"),
        "d-labels": model_folder(tmp_path / "labels", f"{ONNX}metadata: {{edgeflow: {{labels: 5}}}}\n"),
        "e-zero": model_folder(tmp_path / "zero", 'flavors: {"a\\0b": {}}\n'),
        "f-gone": str(tmp_path / "gone"),
        "g-good": model_folder(tmp_path / "good"),
    }
    (tmp_path / "away" / "CLOSED").touch()
    for name, source in sources.items():
        registry.create_registered_model(name)
        registry.create_model_version(name, source)
    run_pass()
    assert {name: verdict for (name, _), verdict in verdicts(state).items()} == {
        "a-null": "not_deployable",
        "b-list": "not_deployable",
        "c-away": "unreadable",
        "d-labels": "not_deployable",
        "e-zero": "not_deployable",
        "f-gone": "unreadable",
        "g-good": "deployable",
    }
    assert "holds nothing" in message(state, "a-null")
    assert "SlowDown" in message(state, "c-away")

    (tmp_path / "away" / "CLOSED").unlink()
    run_pass()
    assert verdicts(state)["c-away", "1"] == "unreadable"
    clock.pass_by(hours=2)
    run_pass()
    assert verdicts(state)["c-away", "1"] == "deployable", "what could not be read is read again"
    assert list((tmp_path / "data").glob("checking-*")) == []


def test_an_error_that_nobody_thought_of_is_a_verdict_too(
    registry: Any,
    hook: RegistryHook,
    state: State,
    tmp_path: Path,
    run_pass: RegistryPass,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = registry_pass.publish.check

    def check(folder: Path, entry: str, *, steps: str) -> Any:
        if (folder / "MLmodel").read_text().startswith("# odd"):
            raise ZeroDivisionError("surprise")
        return real(folder, entry, steps=steps)

    monkeypatch.setattr(registry_pass.publish, "check", check)
    for name, mlmodel in (("a", f"# odd\n{ONNX}"), ("b", ONNX)):
        registry.create_registered_model(name)
        registry.create_model_version(name, model_folder(tmp_path / name, mlmodel))
    run_pass()
    assert verdicts(state) == {("a", "1"): "unreadable", ("b", "1"): "deployable"}
    assert "surprise" in message(state, "a")
    assert "cannot be checked" in caplog.text


def test_versions_of_which_no_event_came_are_found(
    registry: Any, state: State, tmp_path: Path, run_pass: RegistryPass, clock: Clock
) -> None:
    clock.now = datetime.now(UTC)
    source = model_folder(tmp_path / "m")
    registry.create_registered_model("m")
    for _ in range(3):  # by a plain client on MLflow's database
        registry.create_model_version("m", source)
    prompt = f"prompt-{uuid.uuid4().hex}"
    registry.create_registered_model(prompt, tags=[ModelVersionTag(PROMPT_TAG, "true")])
    registry.create_model_version(prompt, "dummy", tags=[ModelVersionTag(PROMPT_TAG, "true")])
    run_pass()
    run_pass()
    assert verdicts(state) == {("m", str(number)): "deployable" for number in (1, 2, 3)}
    registry.create_model_version("m", source)
    clock.pass_by(minutes=2)
    run_pass()
    assert verdicts(state)["m", "4"] == "pending"


def test_old_versions_are_left_alone(
    registry: Any, state: State, tmp_path: Path, run_pass: RegistryPass, clock: Clock
) -> None:
    clock.now = datetime.now(UTC) + timedelta(days=30)
    registry.create_registered_model("m")
    registry.create_model_version("m", model_folder(tmp_path / "m"))
    run_pass()
    assert verdicts(state) == {}


def test_all_pages_of_new_versions_are_looked_at(
    registry: Any, state: State, tmp_path: Path, run_pass: RegistryPass, clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(registry_pass, "_PAGE", 2)
    clock.now = datetime.now(UTC)
    source = model_folder(tmp_path / "m")
    registry.create_registered_model("m")
    for _ in range(5):
        registry.create_model_version("m", source)
    run_pass()
    assert len(verdicts(state)) == 5


def test_one_deployment_that_cannot_follow_does_not_stop_the_others(
    registry: Any,
    hook: RegistryHook,
    state: State,
    tmp_path: Path,
    run_pass: RegistryPass,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a", "b"):
        add_target(state, f"robot-{name}")
        registry.create_registered_model(name)
        registry.create_model_version(name, model_folder(tmp_path / f"{name}1"))
        registry.create_model_version(name, model_folder(tmp_path / f"{name}2"))
        registry.set_registered_model_alias(name, "champion", "1")
        bundle, alias = registry_pass.publish_model(state, run_pass._catalog, f"models:/{name}@champion")
        deploy.create(
            state,
            name,
            where=deploy.Where(targets=(f"robot-{name}",)),
            what=revisions.What(bundle_id=bundle.id, model_uri=f"models:/{name}@champion", alias=alias),
            actor="test",
        )
        registry.set_registered_model_alias(name, "champion", "2")

    def versions() -> dict[str, str]:
        with state.database.read() as session:
            found = {}
            for name in ("a", "b"):
                rollout = session.get_one(models.Rollout, deploy.get(session, name).rollout_id)
                found[name] = session.get_one(models.Bundle, rollout.bundle_id).model_version
            return found

    real = registry_pass.publish_model

    def publish_model(state: State, catalog: Catalog, uri: str) -> Any:
        if uri == "models:/a@champion":
            raise ZeroDivisionError("surprise")
        return real(state, catalog, uri)

    with monkeypatch.context() as patched:
        patched.setattr(registry_pass, "publish_model", publish_model)
        with caplog.at_level(logging.ERROR):
            run_pass()
            run_pass()
        assert versions() == {"a": "1", "b": "2"}
        assert caplog.text.count("cannot follow its alias") == 1, "it waits before it tries again"
    clock.pass_by(minutes=6)
    run_pass()
    assert versions() == {"a": "2", "b": "2"}
