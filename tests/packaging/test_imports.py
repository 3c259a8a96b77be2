"""Importing starts nothing: every module of both packages, each in an interpreter of its own making."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgeflow_agent
import edgeflow_mlflow

ROOT = Path(__file__).parents[2]
# Migration scripts are run by alembic, never imported; __main__ is a program.
LEFT_OUT = ("edgeflow_mlflow.db.migrations",)

PROBE = """
import importlib, json, os, sys, threading

third_party = [name for name in json.loads(sys.argv[2]) if name]
for name in third_party:
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # an extra that is not installed

# What others do while they are imported is theirs; from here on it is ours.
threads = {thread.ident for thread in threading.enumerate()}
seen = []
FORBIDDEN = {"socket.__new__", "socket.connect", "socket.bind", "subprocess.Popen", "os.fork", "os.system"}

def hook(event, args):
    if event in FORBIDDEN:
        seen.append((event, repr(args)[:200]))
    elif event == "open" and isinstance(args[0], str):
        mode = args[1] if isinstance(args[1], str) else ""
        flags = args[2] if isinstance(args[2], int) else 0
        if set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            seen.append((event, repr(args)[:200]))

sys.dont_write_bytecode = True
sys.addaudithook(hook)
environment = dict(os.environ)
modules = json.loads(sys.argv[1])
failed = {}
for name in modules:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = repr(error)
started = [thread.name for thread in threading.enumerate() if thread.ident not in threads]
print(json.dumps({
    "seen": seen, "threads": started, "failed": failed,
    "onnxruntime": "onnxruntime" in sys.modules and "onnxruntime" not in third_party,
    "telemetry": os.environ.get("ORT_DISABLE_TELEMETRY"),
}))
"""


def modules(package: object) -> list[str]:
    name, path = package.__name__, package.__path__  # type: ignore[attr-defined]
    found = [name, *(item.name for item in pkgutil.walk_packages(path, f"{name}."))]
    return [item for item in found if not item.startswith(LEFT_OUT) and not item.endswith("__main__")]


def outside(package: str) -> list[str]:
    """The modules of others that the sources of a package name at their top level."""
    names = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    return sorted(name for name in names if not name.startswith(("edgeflow_", "__")))


@pytest.mark.parametrize("package", [edgeflow_agent, edgeflow_mlflow], ids=lambda item: item.__name__)
def test_importing_every_module_starts_nothing(package: object, tmp_path: Path) -> None:
    name = package.__name__  # type: ignore[attr-defined]
    # onnxruntime comes last, after the package had its chance to switch the telemetry off.
    others = [item for item in outside(name) if not item.startswith("onnxruntime")]
    ended = subprocess.run(
        [sys.executable, "-B", "-W", "ignore", "-c", PROBE, json.dumps(modules(package)), json.dumps(others)],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["failed"] == {}
    assert told["threads"] == []
    assert told["seen"] == []
    assert not told["onnxruntime"] or told["telemetry"] == "1"
    assert list(tmp_path.iterdir()) == []
