"""`mlflow deployments run-local`: a server and an agent of their own, with one model between them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click
import mlflow

from edgeflow_mlflow.api import records
from edgeflow_mlflow.client import ApiError, Client

_START_S = 60.0
_END_S = 10.0
_TARGET = "local"


def run(name: str, model_uri: str, config: dict[str, Any]) -> None:
    """Serve `model_uri` through the whole chain until Ctrl-C. `config` may set `port` of the answer."""
    unknown = set(config) - {"port"}
    if unknown:
        raise ApiError(f"run-local knows -C port only, not {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="edgeflow-local-") as place:
        folder = Path(place)
        files = mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=str(folder / "model"))
        processes: list[subprocess.Popen[bytes]] = []
        try:
            url = _start(folder, processes, name, Path(files), str(config.get("port", 0)))
            click.echo(f"{name} answers at {url}/infer  (Ctrl-C ends)")
            while all(process.poll() is None for process in processes):
                time.sleep(0.5)
            raise ApiError("a part of the local deployment ended by itself; its last words are above")
        except KeyboardInterrupt:
            click.echo("ending")
        finally:
            _end(processes)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask the parts to end, and see to it: whoever pressed Ctrl-C wants the prompt back."""
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            click.echo(f"{' '.join(process.args[3:5])} does not end by itself and is killed")  # type: ignore[index, arg-type]
            process.kill()
            process.wait()


def _start(folder: Path, processes: list[subprocess.Popen[bytes]], name: str, files: Path, port: str) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    server = ["server", "--port", address.rpartition(":")[2], "--mqtt-port", "0"]
    processes.append(
        _spawn("edgeflow_mlflow.cli.main", server, folder / "server", MLFLOW_TRACKING_URI=address)
    )
    client = Client(address)
    _until(lambda: _answers(f"{address}/api/v1/health"), processes, "the local server")
    version = _register(address, name, files)
    token = client.create_token(records.TokenCreate(ttl_s=600)).token
    state = ["--state-dir", str(folder / "agent")]
    enrolled = _spawn(
        "edgeflow_agent.cli",
        ["enroll", "--server", address, "--token", token, "--target", _TARGET, *state],
        folder / "device",
    )
    if enrolled.wait() != 0:
        raise ApiError("the local agent could not enrol; its words are above")
    processes.append(_spawn("edgeflow_agent.cli", ["run", "--port", port, *state], folder / "device"))
    client.create_deployment(
        records.DeploymentCreate(
            name=name, model_uri=f"models:/{name}/{version}", where=records.Place(targets=[_TARGET])
        )
    )
    for detail in client.watch(name, _START_S):
        states = [item.state for item in detail.executions]
    if states != ["deployed"]:
        last = detail.executions[0]
        raise ApiError(f"the local agent did not take the model: {last.state}, {last.reason}: {last.message}")
    return str(json.loads((folder / "agent" / "agent.json").read_text())["url"])


def _spawn(module: str, words: list[str], folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    start = f"from {module} import main; main()"
    return subprocess.Popen(  # noqa: S603 - our own module, no shell
        [sys.executable, "-c", start, *words], cwd=folder, env={**os.environ, **environment}
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _until(condition: Any, processes: list[subprocess.Popen[bytes]], what: str) -> None:
    deadline = time.monotonic() + _START_S
    while not condition():
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            raise ApiError(f"{what} did not start; its words are above")
        time.sleep(0.1)


def _register(address: str, name: str, files: Path) -> str:
    """Log the downloaded model to the local server as it is, without loading it."""
    client = mlflow.MlflowClient(tracking_uri=address)
    run = client.create_run("0", run_name=f"run-local {name}")
    client.log_artifacts(run.info.run_id, str(files), "model")
    client.set_terminated(run.info.run_id)
    client.create_registered_model(name)
    version = client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    shutil.rmtree(files, ignore_errors=True)
    return str(version.version)
