"""The main job, whole, on this machine: from a training script to an answer on three devices.

    python examples/demo.py            stays up until Ctrl-C
    python examples/demo.py --exit     stops by itself

Everything is real: an MLflow server with Edgeflow, three agents in processes of their own, a training
script that uses only the public mlflow client, `mlflow deployments create`, requests to POST /infer.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from edgeflow_mlflow.api import records
from edgeflow_mlflow.client import Client

ROBOTS = ("robot-01", "robot-02", "robot-03")
SAMPLE = [5.1, 3.5, 1.4, 0.2]
BIN = Path(sys.executable).parent
HERE = Path(__file__).parent
console = Console(highlight=False, soft_wrap=True)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """The condition's first true value, or an end with a clear word."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if found := condition():
                return found
        time.sleep(0.05)
    raise SystemExit(f"the demo waited {timeout_s:g} s for {what}; see the logs in the folder above")


def fetch(url: str, body: object = None) -> Any:
    """JSON from a URL."""
    parts = urlsplit(url)
    link = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=10)
    try:
        link.request(
            "GET" if body is None else "POST", parts.path, None if body is None else json.dumps(body)
        )
        answer = link.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise OSError(f"{url} answered {answer.status}: {data[:200]!r}")
        return json.loads(data)
    finally:
        link.close()


@dataclass
class Stage:
    """The processes of the demo, and where they live."""

    folder: Path
    address: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What every process of the demo gets."""
        return {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            "MLFLOW_TRACKING_URI": self.address,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_PYTHON_REFRESH": "quiet",
        }

    def start(self, name: str, *words: str, **environment: str) -> None:
        """Start a program that stays, its words in a log file."""
        log = (self.folder / f"{name}.log").open("wb")
        self.processes.append(
            subprocess.Popen(
                [str(BIN / words[0]), *words[1:]],
                cwd=self.folder,
                env={**self.environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )

    def run(self, *words: str, shown: str | None = None) -> str:
        """Run a program to its end and show what was typed."""
        console.print(f"  [bold]$ {shown or ' '.join(words)}[/]", markup=True)
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def stop(self) -> None:
        """End every process, devices first."""
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


class Traffic:
    """Requests to every device, one after another without a pause, counted."""

    def __init__(self, urls: list[str]) -> None:
        self._stop = threading.Event()
        self.answered: dict[str, int] = {}
        self.failed: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(url,), daemon=True) for url in urls]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, url: str) -> None:
        parts = urlsplit(url)
        link = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=10)
        body = json.dumps(SAMPLE)
        while not self._stop.is_set():
            try:
                link.request("POST", "/infer", body)
                answer = link.getresponse()
                data = answer.read()
                version = json.loads(data)["model"]["version"] if answer.status == 200 else ""
                problem = "" if version else f"{answer.status} {data[:100]!r}"
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                version, problem = "", repr(error)
                link.close()
            with self._lock:
                if problem:
                    self.failed.append(problem)
                else:
                    self.answered[version] = self.answered.get(version, 0) + 1
            time.sleep(0.001)  # leave the two cores some room for the rest of the demo


def step(number: int, text: str) -> None:
    """A heading of the story."""
    console.print(f"\n[bold cyan]{number}.[/] [bold]{text}[/]")


def wait_for_devices(client: Client, name: str, version: str) -> None:
    """A bar that moves as devices report."""
    with Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} devices"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task(f"{name} version {version}", total=len(ROBOTS))
        for detail in client.watch(name, 60):
            done = [item for item in detail.executions if item.state == "deployed"]
            progress.update(task, completed=len(done))
    for item in detail.executions:
        if item.state != "deployed":
            raise SystemExit(f"{item.target}: {item.state} {item.reason} {item.message}")


def model_uri(printed: str) -> str:
    """What the training script says it has registered."""
    found = re.search(r"models:/\S+", printed)
    assert found is not None
    return found[0]


def enrol_robots(stage: Stage, client: Client) -> dict[str, str]:
    """Three agents with an identity each; their URLs."""
    token = client.create_token(records.TokenCreate(uses=len(ROBOTS), labels={"site": "lyon"})).token
    for robot in ROBOTS:
        stage.run(
            "edgeflow-agent", "enroll", "--server", stage.address, "--token", token, "--target", robot,
            "--state-dir", str(stage.folder / robot),
            shown=f"edgeflow-agent enroll --server {stage.address} --token {token[:9]}… --target {robot}",
        )  # fmt: skip
        stage.start(robot, "edgeflow-agent", "run", "--state-dir", str(stage.folder / robot), "--port", "0")
    urls = {}
    for robot in ROBOTS:
        said = stage.folder / robot / "agent.json"
        urls[robot] = until(lambda said=said: said.is_file() and json.loads(said.read_text())["url"], robot)
    until(lambda: all(item.connected for item in client.targets()), "the agents' MQTT connections")
    return urls


def tell_lineage(client: Client, robot: str) -> None:
    """Which run and which data produced what a device now serves."""
    target = client.target(robot)
    detail = client.deployment(target.deployment or "")
    run = detail.lineage["run"]
    console.print(f"  {robot} serves [bold]{target.actual.model} version {target.actual.version}[/]")
    console.print(f"    files     sha256 {target.actual.digest[:16]}… (as the device itself reports it)")
    assert target.actual.run_id == run["id"]
    console.print(f"    run       {run['name']} ({run['id']}) by {run['user']}")
    params = ", ".join(f"{key}={value}" for key, value in sorted(run["params"].items()))
    console.print(f"    training  {params}; accuracy {run['metrics']['accuracy']:.3f}")
    for found in detail.lineage["datasets"]:
        console.print(f"    data set  {found['name']}, digest {found['digest']} ({found['context']})")


def story(stage: Stage) -> dict[str, str]:
    """The main job, told as it happens; the devices' URLs."""
    step(1, "A real MLflow server with Edgeflow")
    port, address = urlsplit(stage.address).port, stage.address
    console.print(f"  [bold]$ mlflow server --app-name edgeflow --port {port}[/]")
    stage.start(
        "server", "mlflow", "server", "--app-name", "edgeflow", "--workers", "1", "--port", str(port),
        EDGEFLOW_MQTT_PORT="0", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
    )  # fmt: skip
    client = Client(address)
    until(lambda: fetch(f"{address}/api/v1/ready")["mqtt_healthy"], "the server and its hub")
    console.print(f"  MLflow and Edgeflow at {address}, MQTT at {client.ready().mqtt}")

    step(2, "Three devices enrol with a token and start")
    urls = enrol_robots(stage, client)
    for robot, url in urls.items():
        console.print(f"  {robot} answers at {url}")

    step(3, "Train, log and register a model with the public mlflow client")
    first = model_uri(stage.run("python", str(HERE / "train_iris.py"), shown="python examples/train_iris.py"))
    console.print(f"  registered {first}")

    step(4, "Deploy it to the three devices")
    stage.run(
        "mlflow", "deployments", "create", "-t", "edgeflow", "--name", "iris", "-m", first,
        "-C", f"targets={','.join(ROBOTS)}",
    )  # fmt: skip
    wait_for_devices(client, "iris", "1")

    step(5, "Ask each device")
    for robot, url in urls.items():
        answer = fetch(f"{url}/infer", SAMPLE)
        version = answer["model"]["version"]
        console.print(f"  {robot}: {SAMPLE} -> [bold]{answer['labels'][0]}[/] (version {version})")

    step(6, "Deploy version 2 while requests flow")
    second = model_uri(
        stage.run(
            "python",
            str(HERE / "train_iris.py"),
            "--estimator",
            "forest",
            shown="python examples/train_iris.py --estimator forest",
        )
    )
    with Traffic(list(urls.values())) as traffic:
        stage.run("mlflow", "deployments", "update", "-t", "edgeflow", "--name", "iris", "-m", second)
        wait_for_devices(client, "iris", "2")
        until(lambda: traffic.answered.get("2", 0) >= 100 * len(ROBOTS), "answers by version 2")
    by_version = ", ".join(f"{count:,} by version {item}" for item, count in sorted(traffic.answered.items()))
    console.print(f"  {sum(traffic.answered.values()):,} requests answered ({by_version})")
    if traffic.failed:
        raise SystemExit(f"{len(traffic.failed)} requests failed, the first: {traffic.failed[0]}")
    console.print("  [bold green]0 failed[/]")

    step(7, "Which training run and which data produced what robot-02 now serves?")
    tell_lineage(client, "robot-02")
    return urls


@contextlib.contextmanager
def staged(keep: bool) -> Iterator[Stage]:
    """A fresh folder and nothing left over."""
    folder = Path(tempfile.mkdtemp(prefix="edgeflow-demo-"))
    stage = Stage(folder, f"http://127.0.0.1:{free_port()}")
    console.print(f"[dim]data and logs of this demo: {folder}[/]")
    try:
        yield stage
    except BaseException:
        keep = True
        raise
    finally:
        stage.stop()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run the story, then stay or stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--exit", action="store_true", help="stop by itself at the end")
    leave = parser.parse_args().exit
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with staged(keep=False) as stage:
        urls = story(stage)
        console.print(f"\n[bold green]Done[/] in {time.monotonic() - began:.0f} s.\n")
        if leave:
            return
        console.print(f"  MLflow UI   {stage.address}")
        console.print(f"  API         {stage.address}/api/v1/targets  (all: /api/v1/openapi.json)")
        for robot, url in urls.items():
            console.print(f"  {robot}    {url}/model  {url}/metrics")
        one = next(iter(urls.values()))
        console.print(f"  try         curl {one}/infer -d '{json.dumps(SAMPLE)}'")
        console.print(f"              MLFLOW_TRACKING_URI={stage.address} {BIN / 'edgeflow'} targets list")
        console.print("\nCtrl-C ends it.")
        with contextlib.suppress(KeyboardInterrupt):
            while all(process.poll() is None for process in stage.processes):
                time.sleep(0.5)


if __name__ == "__main__":
    main()
