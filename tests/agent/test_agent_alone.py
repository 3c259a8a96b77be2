"""The agent on its own: what it serves, where it answers, what runs the model, and what systemd hears."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeflow_agent import errors
from edgeflow_agent.config import AgentConfig
from edgeflow_agent.inference import compiled, engine, providers
from edgeflow_agent.link import registry
from edgeflow_agent.runtime import sources
from edgeflow_agent.runtime.standalone import Standalone
from tests.agent.conftest import endless, hungry, linear, request, wait_for

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Callable[..., Standalone]]:
    started: list[Standalone] = []

    def start(model: Path | str, **changes: Any) -> Standalone:
        config = AgentConfig(**{"port": 0, "state_dir": tmp_path / "state", **changes})
        service = Standalone(config, str(model))
        started.append(service)
        service.start()
        return service

    yield start
    for service in started:
        service.stop()


def written(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data or linear())
    return path


# ---- what is served


def test_a_folder_with_its_labels_and_columns(tmp_path: Path, alone: Callable[..., Standalone]) -> None:
    written(tmp_path / "flowers" / "model.onnx")
    said = {"format": 1, "columns": ["a", "b", "c", "d"], "labels": ["low", "high"]}
    written(tmp_path / "flowers" / "extra_files" / "edgeflow.json", json.dumps(said).encode())
    service = alone(tmp_path / "flowers")
    status, answer = request(f"{service.url}/infer", {"a": 1, "b": 1, "c": 1, "d": 1})
    assert status == 200
    assert answer["outputs"]["y"] == [[4.0]]
    assert service.model.name == "flowers"
    assert service.example == '{"a": 0, "b": 0, "c": 0, "d": 0}'


def test_what_cannot_be_found_is_said(tmp_path: Path) -> None:
    config = AgentConfig(state_dir=tmp_path / "state")
    written(tmp_path / "two" / "a.onnx")
    written(tmp_path / "two" / "b.onnx")
    written(tmp_path / "odd" / "model.onnx")
    written(tmp_path / "odd" / "extra_files" / "edgeflow.json", b"{")
    (tmp_path / "none").mkdir()
    for text, words in (
        (str(tmp_path / "nowhere.onnx"), "there is no file"),
        (str(tmp_path / "two"), "has 2: name one of them"),
        (str(tmp_path / "none"), "has none"),
        (str(tmp_path / "odd"), "cannot be read"),
        ("models:/iris", "write models:/name/3 or models:/name@alias"),
        ("models:/iris/latest", "write models:/name/3 or models:/name@alias"),
        ("models:/iris/1", "--tracking-uri http://host:5000"),
    ):
        with pytest.raises(errors.ConfigError, match=re.escape(words)):
            sources.find(text, config)


def test_a_model_that_cannot_be_served_is_refused_before_the_port_is_taken(tmp_path: Path) -> None:
    with pytest.raises(errors.ModelError):
        Standalone(AgentConfig(port=0), str(written(tmp_path / "bad.onnx", b"no graph")))


# ---- an MLflow registry over plain HTTP


class Registry(http.server.ThreadingHTTPServer):
    """As much of MLflow's HTTP API as fetching a version takes, with faults. The real one is asked in
    tests/acceptance."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.location = "mlflow-artifacts:/1/models/m-1/artifacts"
        self.files: dict[str, bytes] = {
            "model.onnx": linear(),
            "extra_files/edgeflow.json": b'{"labels": []}',
        }
        self.cut = 0
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Registry

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self.server.headers.append(dict(self.headers))
        route, _, query = self.path.partition("?")
        root = self.server.location.removeprefix("mlflow-artifacts:/")
        if route.endswith("/alias"):
            self.answer({"model_version": {"version": "2"}})
        elif route.endswith("/get-download-uri"):
            if "name=iris" not in query:
                self.answer({"message": "no such model", "error_code": "RESOURCE_DOES_NOT_EXIST"}, 404)
            else:
                self.answer({"artifact_uri": self.server.location})
        elif query:
            inner = "extra_files/" if query.endswith("extra_files") else ""
            names = [name.removeprefix(inner) for name in self.server.files if name.startswith(inner)]
            found = [{"path": name, "is_dir": False} for name in names if "/" not in name]
            found += [{"path": item, "is_dir": True} for item in {n.split("/")[0] for n in names if "/" in n}]
            self.answer({"files": found})
        else:
            data = self.server.files[route.partition(f"{root}/")[2]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) - self.server.cut])

    def answer(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def mlflow() -> Iterator[Registry]:
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def pull(server: Registry, into: Path, name: str = "iris", *, version: str = "1", alias: str = "") -> Path:
    return registry.pull(server.url, name, version=version, alias=alias, into=into)[0]


def test_a_version_is_fetched_once(mlflow: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    folder = pull(mlflow, tmp_path)
    assert (folder / "model.onnx").read_bytes() == linear()
    assert (folder / "extra_files" / "edgeflow.json").is_file()
    assert {item["Authorization"] for item in mlflow.headers} == {"Basic YW5uOnNlY3JldA=="}
    before = len(mlflow.headers)
    assert pull(mlflow, tmp_path) == folder
    assert len(mlflow.headers) == before
    assert pull(mlflow, tmp_path, version="", alias="champion").name == "2"


def test_what_the_registry_says_wrong(
    mlflow: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.TransferError, match="answered 404: no such model"):
        pull(mlflow, tmp_path, "lotus")
    mlflow.cut = 3
    with pytest.raises(errors.TransferError, match="cut off"):
        pull(mlflow, tmp_path)
    mlflow.cut = 0
    mlflow.files = {"../../evil/model.onnx": b"x"}
    with pytest.raises(errors.TransferError, match="names a file"):
        pull(mlflow, tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    mlflow.location = "s3://bucket/1"
    with pytest.raises(errors.ConfigError, match="lie at s3://bucket/1"):
        pull(mlflow, tmp_path)
    mlflow.shutdown()
    mlflow.server_close()
    with pytest.raises(errors.TransferError, match="cannot reach the registry"):
        pull(mlflow, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# ---- what runs it


@pytest.mark.parametrize(
    ("asked", "available", "names", "words"),
    [
        ((), [providers.CPU], [providers.CPU], ["cpu: found"]),
        ((), [CUDA, providers.CPU], [CUDA, providers.CPU], ["cuda: found", "cpu: found"]),
        (
            (),
            [TENSORRT, CUDA, providers.CPU],
            [CUDA, providers.CPU],
            ["tensorrt: found, used only when asked"],
        ),
        (("tensorrt",), [TENSORRT, providers.CPU], [TENSORRT, providers.CPU], ["tensorrt: asked for"]),
        (("cuda", "cpu"), [providers.CPU], [providers.CPU], ["this build of onnxruntime does not have it"]),
        ((CUDA,), [CUDA, providers.CPU], [CUDA, providers.CPU], ["cpu: for what the others cannot run"]),
    ],
)
def test_which_provider_and_why(
    asked: tuple[str, ...], available: list[str], names: list[str], words: list[str]
) -> None:
    choice = providers.choose(asked, available)
    assert list(choice.names) == names
    said = providers.outcome(choice, names)
    assert all(word in said for word in words), said


def test_a_provider_that_does_not_start_is_said() -> None:
    choice = providers.choose((), [CUDA, providers.CPU])
    assert "cuda: did not start" in providers.outcome(choice, [providers.CPU])


def test_a_wrong_word_names_the_right_one() -> None:
    assert providers.full_name(" CUDA ") == CUDA
    with pytest.raises(errors.ConfigError, match="did you mean 'cuda'"):
        providers.full_name("cudda")


def test_an_optimised_graph_answers_the_same(tmp_path: Path, alone: Callable[..., Standalone]) -> None:
    path = written(tmp_path / "m.onnx")
    first = alone(path, compile=True)
    (graph,) = (tmp_path / "state" / "compiled").glob("*.onnx")
    made = graph.stat().st_mtime_ns
    second = alone(path, compile=True)
    assert graph.stat().st_mtime_ns == made, "the second start loads what the first has made"
    for service in (first, second):
        assert request(f"{service.url}/infer", [1, 1, 1, 1])[1]["outputs"]["y"] == [[4.0]]


def test_a_damaged_optimised_graph_is_made_anew(tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx")
    folder, digest = tmp_path / "compiled", "a" * 64
    engine.Engine(path, compiled=folder, digest=digest)
    (graph,) = folder.glob("*.onnx")
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-20] + bytes(20))
    loaded = engine.Engine(path, compiled=folder, digest=digest)
    assert loaded.run({"x": np.ones((1, 4), np.float32)})[0].tolist() == [[4.0]]
    assert graph.read_bytes() == whole


def test_where_an_optimised_graph_cannot_be_kept_the_original_serves(tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx")
    (tmp_path / "file").touch()
    loaded = engine.Engine(path, compiled=tmp_path / "file", digest="a" * 64)
    assert loaded.run({"x": np.ones((1, 4), np.float32)})[0].tolist() == [[4.0]]


def test_optimised_graphs_of_models_that_are_gone_go_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        engine.Engine(written(tmp_path / "m.onnx"), compiled=tmp_path / "c", digest=name * 64)
    compiled.forget_all_but(tmp_path / "c", ["b" * 64])
    assert {path.name[:32] for path in (tmp_path / "c").iterdir()} == {"b" * 32}


# ---- where it answers, and what systemd hears


def test_a_socket_in_the_file_system(tmp_path: Path, alone: Callable[..., Standalone]) -> None:
    place = tmp_path / "s"
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(place))
    left_over.close()  # as a killed process leaves it
    service = alone(written(tmp_path / "m.onnx"), unix_socket=str(place))
    assert service.url == f"unix:{place}"
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(place))
        link.sendall(b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n[1,1,1,1]")
        assert b'"y":[[4.0]]' in link.recv(4096)
    with pytest.raises(errors.ConfigError, match="--unix-socket"):
        alone(tmp_path / "m.onnx", unix_socket=str(place))
    service.stop()
    assert not place.exists()


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, abstract: bool) -> None:
    address = f"@edgeflow-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0"))
        systemd.settimeout(20)
        model = written(tmp_path / "m.onnx")
        command = [sys.executable, "-m", "edgeflow_agent.cli", "serve", str(model), "--port", "0"]
        environment = os.environ | {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            assert systemd.recv(4096).startswith(b"READY=1\nSTATUS=serving ")
            assert systemd.recv(4096) == b"WATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: systemd.recv(4096) == b"STOPPING=1", what="the word that it stops")
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


def test_a_loop_that_hangs_is_not_alive(tmp_path: Path, alone: Callable[..., Standalone]) -> None:
    service = alone(written(tmp_path / "m.onnx"))
    assert service.alive()
    loop = service._serving._loop
    assert loop is not None
    release = threading.Event()
    loop.call_soon_threadsafe(release.wait)
    assert not service._serving.alive(timeout_s=0.2)
    release.set()
    wait_for(service.alive, what="the loop to go on")


def test_what_this_device_can_do(tmp_path: Path) -> None:
    model = written(tmp_path / "m.onnx")
    command = [sys.executable, "-m", "edgeflow_agent.cli", "bench", str(model), "--seconds", "0.2"]
    environment = os.environ | {"EDGEFLOW_AGENT_AGENT_STATE_DIR": str(tmp_path / "state")}
    told = subprocess.run([*command, "--json"], env=environment, capture_output=True, check=True).stdout
    found = json.loads(told)
    assert found["model"] == "m"
    assert {(item["threads"], item["at_once"]) for item in found["runs"]} >= {(1, 1)}
    assert all(item["per_second"] > 0 and item["p99_ms"] >= item["p50_ms"] > 0 for item in found["runs"])
    assert found["http"]["per_second"] > 0
    shown = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout
    assert "requests/s" in shown
    assert "--threads" in shown


def test_two_signals_at_once_end_it_all_the_same(tmp_path: Path) -> None:
    model = written(tmp_path / "m.onnx")
    command = [sys.executable, "-m", "edgeflow_agent.cli", "serve", str(model), "--port", "0"]
    for _ in range(5):
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"serving")
            for number in (signal.SIGINT, signal.SIGTERM) * 20:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
            assert process.wait(20) == 0


_TRIES = """
import sys, threading
from pathlib import Path
from edgeflow_agent import errors
from edgeflow_agent.inference.trial_load import trial_load
if sys.argv[2] == "spawned":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
try:
    verdict = trial_load(Path(sys.argv[1]), timeout_s=2.0, max_memory_mb=512)
    print("well", verdict.inputs[0].name, verdict.seconds < 2, verdict.peak_mb > 1)
except errors.ModelError as error:
    print(error.reason)
"""


@pytest.mark.parametrize("kind", ["forked", "spawned"])
@pytest.mark.parametrize(
    ("model", "said"),
    [(linear, "well x True True"), (endless, "load_timeout"), (hungry, "load_memory"), (None, "model")],
)
def test_a_model_is_tried_in_a_child(
    tmp_path: Path, kind: str, model: Callable[[], bytes] | None, said: str
) -> None:
    place = written(tmp_path / "m.onnx", b"no model" if model is None else model())
    words = [sys.executable, "-c", _TRIES, str(place), kind]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == said
