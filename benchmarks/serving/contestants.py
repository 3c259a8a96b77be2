"""Who is compared: how each is installed, started and asked. Each runs one worker, on one thread a run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SERVERS = Path(__file__).parent / "servers"
_AGENT = Path(__file__).parents[2] / "packaging" / "agent"
_START_S = 90.0
_QUIET = {
    "ORT_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "PYTHONDONTWRITEBYTECODE": "",
    "OMP_NUM_THREADS": "1",
}
INPUTS = {"iris": "X", "mobilenet": "image"}


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One server. `command` makes its words from (python, model file, model's name, port, scratch folder)."""

    name: str
    packages: tuple[str, ...]
    command: Callable[[Path, Path, str, int, Path], list[str]]
    path: str = "/infer"
    body: str = "{model}.json"
    environment: dict[str, str] = field(default_factory=dict)
    binary: bool = False  # whether an image can be sent as bytes to /infer
    interpreter: str = sys.executable


def _agent(python: Path, model: Path, _name: str, port: int, folder: Path) -> list[str]:
    words = [str(python.parent / "edgeflow-agent"), "serve", str(model), "--port", str(port)]
    return [*words, "--state-dir", str(folder / "state")]


def _mlflow(python: Path, model: Path, name: str, port: int, folder: Path) -> list[str]:
    saved = folder / f"mlflow-{name}"
    if not saved.is_dir():
        code = (
            "import mlflow, onnx, sys; "
            "mlflow.onnx.save_model(onnx.load(sys.argv[1]), sys.argv[2], save_as_external_data=False)"
        )
        subprocess.run(
            [str(python), "-c", code, str(model), str(saved)],
            check=True,
            capture_output=True,
            env=os.environ | _QUIET,
        )
    words = [str(python.parent / "mlflow"), "models", "serve", "-m", str(saved), "-p", str(port)]
    return [*words, "--env-manager", "local", "--workers", "1"]


def _mlserver(python: Path, model: Path, _name: str, port: int, folder: Path) -> list[str]:
    place = folder / "mlserver"
    place.mkdir(exist_ok=True)
    shutil.copy(SERVERS / "mlserver_runtime.py", place)
    settings = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "host": "127.0.0.1"}
    settings |= {"parallel_workers": 0, "debug": False}
    (place / "settings.json").write_text(json.dumps(settings))
    own = {"name": "model", "implementation": "mlserver_runtime.Onnx", "parameters": {"uri": str(model)}}
    (place / "model-settings.json").write_text(json.dumps(own))
    return [str(python.parent / "mlserver"), "start", str(place)]


def _script(name: str) -> Callable[[Path, Path, str, int, Path], list[str]]:
    def command(python: Path, model: Path, kind: str, port: int, _folder: Path) -> list[str]:
        return [str(python), str(SERVERS / name), str(model), INPUTS[kind], str(port)]

    return command


def _bentoml(python: Path, _model: Path, _name: str, port: int, _folder: Path) -> list[str]:
    words = [str(python.parent / "bentoml"), "serve", "bentoml_service:Onnx", "--port", str(port)]
    return [*words, "--host", "127.0.0.1", "--working-dir", str(SERVERS)]


CONTESTANTS = (
    Contestant(name="edgeflow-agent", packages=(str(_AGENT),), command=_agent, binary=True),
    Contestant(
        name="MLServer",
        packages=("mlserver", "onnxruntime", "uvloop<0.22"),
        command=_mlserver,
        path="/v2/models/model/infer",
        body="{model}.v2.json",
    ),
    Contestant(
        name="Triton (pytriton)",
        packages=("nvidia-pytriton", "onnxruntime"),
        interpreter="/usr/bin/python3",  # Triton loads the system's libpython, and wants its library with it
        command=_script("pytriton_server.py"),
        path="/v2/models/model/infer",
        body="{model}.v2.json",
    ),
    Contestant(
        name="LitServe",
        packages=("litserve", "onnxruntime"),
        command=_script("litserve_server.py"),
        path="/predict",
    ),
    Contestant(
        name="BentoML",
        packages=("bentoml", "onnxruntime"),
        command=_bentoml,
    ),
    Contestant(
        name="mlflow models serve",
        packages=("mlflow", "onnx", "onnxruntime"),
        command=_mlflow,
        path="/invocations",
        body="{model}.inputs.json",
    ),
)


def python_of(contestant: Contestant, folder: Path) -> Path | None:
    """The interpreter of a peer's own venv, made when it is not there; None when it cannot be installed."""
    place = folder / contestant.name.replace(" ", "-")
    python = place / "bin" / "python"
    done = place / ".installed"
    if not done.is_file():
        print(f"installing {contestant.name} …", flush=True)
        subprocess.run([contestant.interpreter, "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", *contestant.packages]
        installed = subprocess.run(pip, capture_output=True, text=True, check=False)
        if installed.returncode:
            print(f"{contestant.name} cannot be installed here: {installed.stderr.strip().splitlines()[-1:]}")
            return None
        done.touch()
    elif str(_AGENT) in contestant.packages:
        # What it needs is there; the agent itself is the one of this moment.
        shutil.rmtree(_AGENT / "build", ignore_errors=True)
        own = ["install", "-q", "--force-reinstall", "--no-deps", str(_AGENT)]
        subprocess.run([str(python), "-m", "pip", *own], check=True)
    return python


@contextlib.contextmanager
def running(
    contestant: Contestant, python: Path, model: Path, kind: str, port: int, folder: Path, body: bytes
) -> Iterator[tuple[int, float]]:
    """The started server: its process id, and the seconds from its start to its first answer."""
    words = contestant.command(python, model, kind, port, folder)
    environment = os.environ | _QUIET | {"MODEL": str(model), "INPUT": INPUTS[kind]} | contestant.environment
    environment["PATH"] = f"{python.parent}:{environment['PATH']}"
    environment.pop("PYTHONPATH", None)
    log = folder / f"{contestant.name.replace(' ', '-')}-{kind}.log"
    begin = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            words, stdout=output, stderr=output, env=environment, start_new_session=True, cwd=folder
        )
    try:
        url = f"http://127.0.0.1:{port}{contestant.path}"
        while not _answers(url, body):
            if process.poll() is not None or time.monotonic() - begin > _START_S:
                raise RuntimeError(f"{contestant.name} did not start; see {log}")
            time.sleep(0.005)
        yield process.pid, time.monotonic() - begin
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str, body: bytes) -> bool:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False
