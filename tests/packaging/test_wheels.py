"""The wheels as a device and a server would get them: built, looked into, installed in a clean environment.

Building and installing takes minutes and a package index, so it is left out unless CI is set.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper, save_model

from edgeflow_agent.version import VERSION

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)
if os.environ.get("CI", "").lower() in {"", "0", "false"}:
    pytest.skip(
        "builds both wheels and a clean environment, which takes minutes: runs with CI=true",
        allow_module_level=True,
    )


def run(*command: str | Path, **more: Any) -> str:
    ended = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **more,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels: those of `make wheels` when CI_WHEELS names their folder, else built here."""
    folder = Path(os.environ.get("CI_WHEELS", ""))
    if not os.environ.get("CI_WHEELS"):
        folder = tmp_path_factory.mktemp("wheels")
        for source in (ROOT, ROOT / "packaging" / "agent"):
            # setuptools packs what an earlier build left there, modules that are gone as well.
            shutil.rmtree(source / "build", ignore_errors=True)
            run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, source, cwd=folder)
    found = {path.name.split("-")[0]: path for path in folder.glob("*.whl")}
    assert found.keys() == {"edgeflow_agent", "edgeflow_mlflow"}
    return found


def sources(package: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}


def packed(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_agents_wheel_holds_the_agent_and_nothing_else(wheels: dict[str, Path]) -> None:
    names = {name for name in packed(wheels["edgeflow_agent"]) if ".dist-info/" not in name}
    assert names == sources("edgeflow_agent") | {"edgeflow_agent/py.typed"}


def test_the_whole_wheel_holds_both_packages_and_what_they_read(wheels: dict[str, Path]) -> None:
    names = {name for name in packed(wheels["edgeflow_mlflow"]) if ".dist-info/" not in name}
    assert names >= sources("edgeflow_agent") | sources("edgeflow_mlflow")
    assert {"edgeflow_agent/py.typed", "edgeflow_mlflow/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "examples", "benchmarks", "docs"))]
    for pattern in ("edgeflow_mlflow/ui/static", "edgeflow_mlflow/db/migrations"):
        kept = {
            str(path.relative_to(ROOT))
            for path in (ROOT / pattern).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
        }
        assert kept <= names


@pytest.mark.parametrize("name", ["edgeflow_agent", "edgeflow_mlflow"])
def test_the_metadata_of_a_wheel(wheels: dict[str, Path], name: str) -> None:
    with zipfile.ZipFile(wheels[name]) as archive:
        folder = f"{name}-{VERSION}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
        assert "Apache License" in archive.read(f"{folder}/licenses/LICENSE").decode()
    assert metadata["Version"] == VERSION
    assert (metadata["License-Expression"] or metadata["License"]) == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


def install(what: str, folder: Path) -> Path:
    run(sys.executable, "-m", "venv", folder)
    run(
        folder / "bin" / "python",
        *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
        what,
    )
    return folder / "bin"


@pytest.fixture(scope="session")
def device(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the agent's wheel and what it asks for on a device that has a server."""
    return install(f"{wheels['edgeflow_agent']}[managed]", tmp_path_factory.mktemp("device") / "venv")


@pytest.fixture(scope="session")
def alone(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the agent's wheel and what serving a model takes."""
    return install(str(wheels["edgeflow_agent"]), tmp_path_factory.mktemp("alone") / "venv")


def packages(bin_folder: Path, tmp_path: Path) -> set[str]:
    listed = json.loads(run(bin_folder / "python", "-m", "pip", "list", "--format=json", cwd=tmp_path))
    return {item["name"].lower() for item in listed} - {"pip", "setuptools"}


def test_serving_alone_takes_few_packages(alone: Path, tmp_path: Path) -> None:
    assert len(packages(alone, tmp_path)) <= 10, packages(alone, tmp_path)
    words = ["enroll", "--server", "http://127.0.0.1:1", "--token", "x", "--target", "robot-07"]
    ended = subprocess.run([alone / "edgeflow-agent", *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "pip install 'edgeflow-agent[managed]'" in ended.stderr


def test_the_device_environment_is_lean(device: Path, tmp_path: Path) -> None:
    names = packages(device, tmp_path)
    assert "edgeflow-agent" in names
    assert not names & {
        *("mlflow", "mlflow-skinny", "flask", "sqlalchemy", "amqtt", "alembic", "pandas", "requests", "onnx"),
        *("edgeflow-mlflow", "scikit-learn", "uvicorn", "starlette"),
    }


def test_every_module_of_the_agent_imports_there(device: Path, tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, edgeflow_agent as package\n"
        "for item in pkgutil.walk_packages(package.__path__, 'edgeflow_agent.'):\n"
        "    item.name.endswith('__main__') or importlib.import_module(item.name)\n"
        "print(package.__file__)"
    )
    assert str(device.parent) in run(device / "python", "-c", code, cwd=tmp_path)


def test_the_agent_says_its_version(device: Path, tmp_path: Path) -> None:
    assert VERSION in run(device / "edgeflow-agent", "--version", cwd=tmp_path)


def test_the_agent_serves_a_model(alone: Path, tmp_path: Path) -> None:
    """The standalone promise: one command, no server, no configuration."""
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    graph = helper.make_graph(
        [node],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    save_model(model, str(tmp_path / "double.onnx"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = tmp_path / "home"
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    process = subprocess.Popen(
        [str(alone / "edgeflow-agent"), "serve", "double.onnx", "--port", str(port)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert ask(process, port, [[1.5, -2.0]]) == [[3.0, -4.0]]
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        ended = process.poll()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert ended == 0


def ask(process: subprocess.Popen[str], port: int, rows: list[list[float]]) -> Any:
    """The answer to one request, as soon as the agent takes it."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/infer",
        data=json.dumps(rows).encode(),
        headers={"Content-Type": "application/json"},
    )
    end = time.monotonic() + 60
    while True:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                body = json.load(answer)
        except (urllib.error.URLError, ConnectionError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code != 503:
                pytest.fail(f"{error.code}: {error.read().decode()}")
            assert time.monotonic() < end, "the agent does not answer"
            time.sleep(0.05)
            continue
        return body["outputs"]["y"]
