"""Real parts for tests: servers, agents and databases as processes, and waiting on conditions."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from edgeflow_agent.config import AgentConfig
from edgeflow_agent.runtime import enrolment
from edgeflow_mlflow.api import records
from edgeflow_mlflow.client import Client

T = TypeVar("T")
BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[1]
IN_CI = os.environ.get("CI", "").lower() == "true"


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], T], what: str, timeout_s: float = 90.0) -> T:
    """The first true value of `condition`; fail with `what` and the last value when the time is over."""
    deadline = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = condition()
            if last:
                return last
        except (OSError, http.client.HTTPException) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout_s:g} s for {what}; last: {last!r}")


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def request(
    method: str,
    url: str,
    body: object = None,
    *,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout_s: float = 30.0,
) -> Answer:
    """One request on a connection of its own; `body` is sent as JSON."""
    parts = urlsplit(url)
    link = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        words = dict(headers or {})
        if body is not None:
            data = json.dumps(body).encode()
            words.setdefault("Content-Type", "application/json")
        link.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), data, words)
        answer = link.getresponse()
        found = {key.lower(): value for key, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    finally:
        link.close()


@dataclass
class Process:
    """A program in a session of its own, its words in a file."""

    words: Sequence[str]
    folder: Path
    name: str
    environment: dict[str, str] = field(default_factory=dict)
    popen: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Where its words are."""
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Begin."""
        self.folder.mkdir(parents=True, exist_ok=True)
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("EDGEFLOW_", "MLFLOW_"))
        }
        environment = {
            **clean,
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",  # a crash says in the log where each thread was
            **self.environment,
        }
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                list(self.words),
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self.popen is not None and self.popen.poll() is None

    @property
    def code(self) -> int | None:
        """How it ended: its exit code, or minus the signal."""
        return None if self.popen is None else self.popen.poll()

    def kill(self) -> None:
        """Power off: the whole group, at once."""
        if self.popen is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()

    def stop(self, timeout_s: float = 20.0) -> int:
        """Ask it to end, and make it end; its exit code."""
        if self.popen is None:
            return 0
        if self.popen.poll() is None:
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        return self.popen.wait()

    def text(self) -> str:
        """What it has said."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@dataclass
class Server:
    """A real server on ports of the kernel's choice."""

    folder: Path
    words: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    kind: str = "edgeflow"  # or "mlflow"
    prefix: str = ""
    mqtt_port: int = 0
    port: int = field(default_factory=free_port)
    process: Process = field(init=False)

    def __post_init__(self) -> None:
        if self.kind == "edgeflow":
            words = [str(BIN / "edgeflow"), "server"]
        else:
            words = [str(BIN / "mlflow"), "server", "--app-name", "edgeflow"]
        words += ["--port", str(self.port)]
        if self.prefix:
            words += ["--static-prefix", self.prefix]
        environment = {
            "EDGEFLOW_MQTT_PORT": str(self.mqtt_port),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            # Quick heartbeats and polls, so that tests see soon what a fleet sees in a minute.
            "EDGEFLOW_DEVICES_HEARTBEAT_S": "1",
            "EDGEFLOW_DEVICES_POLL_S": "0.5",
            "EDGEFLOW_DEVICES_SLOW_POLL_S": "5",
            **self.environment,
        }
        self.process = Process([*words, *self.words], self.folder, "server", environment)

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    @property
    def api(self) -> str:
        """The URL of Edgeflow's routes."""
        return f"{self.address}/api/v1"

    @property
    def client(self) -> Client:
        """A client of it."""
        return Client(self.address)

    def start(self, *, hub: bool = True, timeout_s: float = 60.0) -> Server:
        """Begin, and wait until it answers and (unless told otherwise) its hub runs."""
        self.process.start()
        until(self._answers, f"the server in {self.folder}", timeout_s)
        if hub:
            until(lambda: request("GET", f"{self.api}/ready").json["hub"], "the hub", timeout_s)
        return self

    def _answers(self) -> bool:
        assert self.process.running, f"the server ended ({self.process.code}):\n{self.process.text()[-4000:]}"
        return request("GET", f"{self.api}/health", timeout_s=5).status == 200

    def stop(self) -> None:
        """End."""
        self.process.stop()

    def environment_of_clients(self) -> dict[str, str]:
        """What a command needs to find this server."""
        return {"MLFLOW_TRACKING_URI": self.address}


@dataclass
class Agent:
    """A real, enrolled agent."""

    server: Server
    target: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: Process = field(init=False)

    def __post_init__(self) -> None:
        words = [str(BIN / "edgeflow-agent"), "run", "--state-dir", str(self.state), "--port", "0"]
        self.process = Process(words, self.folder, self.target, self.environment)

    @property
    def state(self) -> Path:
        """Its state folder."""
        return self.folder / f"{self.target}-state"

    def enrol(self, token: str | None = None) -> Agent:
        """Get an identity; as `edgeflow-agent enroll` does, which the demo and the quickstart type."""
        if token is None:
            token = self.server.client.create_token(records.TokenCreate()).token
        config = AgentConfig(server_url=self.server.address, state_dir=self.state)
        enrolment.enrol(config, token=token, target=self.target)
        return self

    def start(self) -> Agent:
        """Begin, and wait until it answers on its own port."""
        said = self.state / "agent.json"
        said.unlink(missing_ok=True)
        self.process.start()
        until(lambda: self._answers(said), f"agent {self.target}")
        return self

    def _answers(self, said: Path) -> bool:
        assert self.process.running, f"the agent ended ({self.process.code}):\n{self.process.text()[-4000:]}"
        return said.is_file() and request("GET", f"{self.url}/health").status in (200, 503)

    @property
    def url(self) -> str:
        """Where it answers."""
        return str(json.loads((self.state / "agent.json").read_text())["url"])

    def infer(self, body: object) -> Answer:
        """Ask its model."""
        return request("POST", f"{self.url}/infer", body)

    def serves(self) -> tuple[str, str] | None:
        """Name and version of the model that it serves."""
        answer = request("GET", f"{self.url}/model")
        return (answer.json["name"], answer.json["version"]) if answer.status == 200 else None

    def stop(self) -> None:
        """End."""
        self.process.stop()


def command(
    *words: str, environment: dict[str, str] | None = None, folder: Path | None = None, fails: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run one of the environment's commands to its end; assert how it ends."""
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **(environment or {})},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode != 0) == fails, (
        f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    )
    return done


def deployed(server: Server, name: str, timeout_s: float = 90.0) -> None:
    """Wait until every device of a deployment has it."""
    for detail in server.client.watch(name, timeout_s):
        states = {item.target: (item.state, item.reason, item.message) for item in detail.executions}
    assert all(state == "deployed" for state, _, _ in states.values()), states


@contextlib.contextmanager
def tracking(uri: str) -> Iterator[None]:
    """Let `mlflow` in this process speak to `uri`, and forget all about it afterwards: MLflow keeps what it
    was told in its modules and in the environment, where commands of later tests would find it."""
    import mlflow
    from mlflow.tracking import fluent

    before = dict(os.environ)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        mlflow.set_registry_uri(None)  # type: ignore[arg-type]
        fluent._active_experiment_id = None
        for name in [item for item in os.environ if "MLFLOW" in item]:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if "MLFLOW" in name})


# ---- PostgreSQL


def _program(name: str) -> str | None:
    found = shutil.which(name)
    if found:
        return found
    places = (
        sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        if Path("/usr/lib/postgresql").exists()
        else []
    )
    return str(places[-1]) if places else None


@contextlib.contextmanager
def postgres() -> Iterator[str | None]:
    """A PostgreSQL server of its own; its URL, or None when the programs are not installed."""
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        yield None
        return
    # It refuses to run as root; the package has made a user for it. Not in pytest's folder: the next pytest
    # on this machine closes that to all other users, and PostgreSQL ends when it cannot read its own files.
    folder = Path(tempfile.mkdtemp(prefix="edgeflow-postgres-"))
    become = []
    if os.geteuid() == 0:
        become = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    data = folder / "data"
    subprocess.run(
        [*become, initdb, "-D", str(data), "-U", "edgeflow", "-A", "trust", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    port = free_port()
    process = subprocess.Popen(
        [*become, server, "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"postgresql+psycopg://edgeflow@127.0.0.1:{port}"
    try:
        until(lambda: _can_connect(port), "PostgreSQL")
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _can_connect(port: int) -> bool:
    import psycopg

    try:
        psycopg.connect(
            host="127.0.0.1", port=port, user="edgeflow", dbname="postgres", connect_timeout=2
        ).close()
    except psycopg.OperationalError:
        return False
    return True


def new_database(url: str, name: str) -> str:
    """A fresh database on that server."""
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "") + "/postgres", autocommit=True) as link:
        link.execute(f'CREATE DATABASE "{name}"')
    return f"{url}/{name}"
