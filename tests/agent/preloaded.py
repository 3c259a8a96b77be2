"""Agents that start fast: a process that has everything imported forks one for each request.

Each is a process of its own that runs the command line of the agent, dies by real signals and is restarted
on what it left on the disk. Only the half second of importing is not spent again and again.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.agent.conftest import AgentProcess, wait_for


class Preloaded:
    """The process that forks."""

    def __init__(self, *words: str, environment: dict[str, str] | None = None) -> None:
        """`impatient`: what fails is tried again at once. `trusting`: no child loads a model first."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.agent.preloaded", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env=os.environ | (environment or {}),
            text=True,
        )

    def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Forked:
    """What `subprocess.Popen` would give."""

    def __init__(self, parent: Preloaded, pid: int) -> None:
        self._parent = parent
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._parent.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout_s: float = 20.0) -> int:
        try:
            wait_for(lambda: self.poll() is not None, timeout_s, what=f"process {self.pid} to end")
        except AssertionError:
            os.kill(self.pid, signal.SIGABRT)  # its log then tells where each of its threads is
            raise
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class ForkedAgent(AgentProcess):
    """`edgeflow-agent run`, forked."""

    def __init__(
        self, parent: Preloaded, state_dir: Path, *args: str, env: dict[str, str] | None = None
    ) -> None:
        self.state_dir = state_dir
        self.log = state_dir.parent / f"{state_dir.name}.log"
        environment = {
            "EDGEFLOW_AGENT_SERVE_PORT": "0",
            "EDGEFLOW_AGENT_SERVER_RESEND_S": "0.5",
            "EDGEFLOW_AGENT_STORE_KEEP_FREE_MB": "0",
            **(env or {}),
        }
        words = ["run", "--state-dir", str(state_dir), *args]
        pid = parent.ask(start=words, env=environment, log=str(self.log))
        self.process = Forked(parent, pid)  # type: ignore[assignment]


def _start(words: list[str], env: dict[str, str], log: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        faulthandler.enable(2)
        os.environ.update(env)
        from edgeflow_agent import cli
        from edgeflow_agent.store import crashpoints

        importlib.reload(crashpoints)  # it reads the environment when it is imported
        cli.main(words, standalone_mode=False)
        code = 0
    except Exception:  # noqa: BLE001 - as Python does at the end of a process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def main() -> None:
    """Answer one question a line, until nobody asks any more."""
    import edgeflow_agent.runtime.agent
    import edgeflow_agent.runtime.systemd  # noqa: F401
    from edgeflow_agent.core import backoff
    from edgeflow_agent.inference import trial_load

    if "impatient" in sys.argv:
        backoff.delay = lambda *_, **__: 0.02
    if "trusting" in sys.argv:
        trial_load.trial_load = lambda *_, **__: None
    alive: set[int] = set()
    for line in sys.stdin:
        question = json.loads(line)
        answer: int | None
        if "start" in question:
            answer = _start(question["start"], question["env"], question["log"])
            alive.add(answer)
        else:
            answer = _poll(question["poll"])
            if answer is not None:
                alive.discard(question["poll"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
