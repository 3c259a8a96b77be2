"""`edgeflow-agent`: the commands of a device."""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from edgeflow_agent import config as configuration
from edgeflow_agent import errors, version

_LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def _fails_in_one_line(command: Callable[..., None]) -> Callable[..., None]:
    """Errors of ours become one line and exit code 1; usage errors are click's (exit code 2)."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except errors.EdgeflowError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)

    return run


def _configured(file: Path | None, **overrides: Any) -> configuration.AgentConfig:
    config = configuration.load(file, overrides=overrides)
    logging.basicConfig(level=config.log_level.upper(), format=_LOG_FORMAT, stream=sys.stderr)
    return config


def _check_managed() -> None:
    """Raise ConfigError when what belonging to a server takes is not installed."""
    missing = [name for name in ("cryptography", "paho") if importlib.util.find_spec(name) is None]
    if missing:
        raise errors.ConfigError(
            "this agent is installed for serving alone; to belong to a server it needs more: "
            "pip install 'edgeflow-agent[managed]'"
        )


_STOPS = (signal.SIGTERM, signal.SIGINT)


class _StopSignal:
    """SIGTERM and SIGINT from now on: taken before the start, so that no stop is ever unclean."""

    def __init__(self) -> None:
        # Written by the handler in C. An event or a queue would be set by Python code of this thread, which
        # does not run when the signal comes in the instant before the thread begins to wait.
        self._come, self._note = os.pipe()
        os.set_blocking(self._note, False)
        for number in _STOPS:
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._note, warn_on_full_buffer=False)

    def wait(self) -> None:
        """Return when one has come. Further ones change nothing, also while the interpreter ends."""
        os.read(self._come, 1)
        for number in _STOPS:
            signal.signal(number, signal.SIG_IGN)


def _providers(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """The words of --providers; a wrong one is a usage error."""
    from edgeflow_agent.inference import providers

    try:
        return None if text is None else tuple(providers.full_name(word) for word in text.split(","))
    except errors.ConfigError as error:
        raise click.BadParameter(str(error)) from error


_CONFIG = click.option(
    "--config", "file", type=click.Path(path_type=Path, dir_okay=False), help="Configuration file (TOML)."
)
_STATE_DIR = click.option(
    "--state-dir", type=click.Path(path_type=Path, file_okay=False), help="State folder."
)
_HOST = click.option("--host", help="Address to answer on (default 127.0.0.1).")
_PORT = click.option("--port", type=click.IntRange(0, 65535), help="Port (default 8080; 0: any free one).")
_LOG_LEVEL = click.option("--log-level", help="debug, info, warning or error.")


@click.group()
@click.version_option(version.VERSION, prog_name="edgeflow-agent")
def main() -> None:
    """Serve ONNX models on this device, alone or managed by an Edgeflow server."""
    # NumPy's linear algebra else begins with a thread for every processor, here and in each trial load, and
    # these spin for a while: nothing needs them, and the model that serves meanwhile needs the processors.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@main.command()
@click.argument("model")
@_CONFIG
@_HOST
@_PORT
@click.option("--unix-socket", type=click.Path(), help="Answer on this socket instead of host and port.")
@click.option("--threads", type=click.IntRange(1), help="Threads inside one run.")
@click.option("--max-concurrent", type=click.IntRange(1), help="Runs at the same time (default: cores).")
@click.option("--providers", callback=_providers, help="Execution providers in order, as cuda,cpu.")
@click.option("--compile/--no-compile", default=None, help="Keep the optimised model for the next start.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow's address, for models:/name/3.")
@_STATE_DIR
@_LOG_LEVEL
@_fails_in_one_line
def serve(model: str, file: Path | None, **overrides: Any) -> None:
    """Serve MODEL without an Edgeflow server: an ONNX file, a folder with one, models:/name/3 or
    models:/name@alias."""
    overrides["log_level"] = overrides["log_level"] or "warning"
    config = _configured(file, **overrides)
    from edgeflow_agent.runtime.standalone import Standalone
    from edgeflow_agent.runtime.systemd import Systemd

    stop = _StopSignal()
    service = Standalone(config, model)
    service.start()
    system = Systemd(service.alive)
    system.ready(f"serving {model} at {service.url}")
    click.echo(f"serving {service.model.name} at {service.url} on {service.providers}")
    click.echo(_try_it(service.url, service.example, service.example_type))
    sys.stdout.flush()
    stop.wait()
    system.stopping()
    service.stop()


@main.command()
@click.argument("model")
@_CONFIG
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=3.0, help="For each way (default 3).")
@click.option("--batch", type=click.IntRange(1, 65536), default=1, help="Rows in one run (default 1).")
@click.option("--providers", callback=_providers, help="Execution providers in order, as cuda,cpu.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow's address, for models:/name/3.")
@_STATE_DIR
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_fails_in_one_line
def bench(model: str, file: Path | None, seconds: float, batch: int, as_json: bool, **overrides: Any) -> None:
    """Measure what this device can do with MODEL, and say which settings to choose."""
    config = _configured(file, log_level="warning", **overrides)
    from edgeflow_agent.runtime import measuring

    found = measuring.measure(config, model, seconds=seconds, batch=batch)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    click.echo(f"{found.model} on {found.providers}, {found.cores} cores")
    click.echo(f"loads in {found.load_ms:.0f} ms; {found.resident_mb:.0f} MiB resident at the most")
    click.echo(f"{'':<24}{'requests/s':>12}{'p50 ms':>10}{'p99 ms':>10}")
    lines = [(f"threads {item.threads}, at once {item.at_once}", item) for item in found.runs]
    if found.http is not None:
        lines.append(("POST /infer, one by one", found.http))
    for name, item in lines:
        click.echo(f"{name:<24}{item.per_second:>12.0f}{item.p50_ms:>10.3f}{item.p99_ms:>10.3f}")
    click.echo(measuring.advice(found))


def _try_it(url: str, body: str, kind: str) -> str:
    """A line for a shell that asks the model something."""
    quoted = body.replace("'", "'\\''")
    if url.startswith("unix:"):
        url = f"--unix-socket {url.removeprefix('unix:')} http://localhost"
    flag = "--data-binary" if body.startswith("@") else "-d"
    return f"curl {url}/infer -H 'Content-Type: {kind}' {flag} '{quoted}'"


@main.command()
@click.option("--server", "server_url", help="Address of the server, http://host:5000.")
@click.option("--token", required=True, help="Enrolment token, eft1_…; - reads it from standard input.")
@click.option("--target", help="Name of this device, for example robot-07.")
@_CONFIG
@_STATE_DIR
@click.option("--force", is_flag=True, help="Replace an identity that is already there.")
@_fails_in_one_line
def enroll(token: str, target: str | None, file: Path | None, force: bool, **overrides: Any) -> None:
    """Give this device an identity."""
    _check_managed()
    config = _configured(file, log_level="warning", **overrides)
    name = target or config.target
    if not name:
        raise errors.ConfigError("no name is given; add --target robot-07")
    from edgeflow_agent.runtime import enrolment

    if token == "-":  # noqa: S105 - the word for standard input
        token = sys.stdin.readline()
    identity = enrolment.enrol(config, token=token, target=name, force=force)
    click.echo(f"enrolled as {identity.target} at {identity.server_url}")
    click.echo(f"start it with: edgeflow-agent run --state-dir {config.state_dir}")


@main.command()
@click.option("--server", "server_url", help="Address of the server, if it has moved since enrolment.")
@click.option("--mqtt", help="Address of the broker; off: HTTP only.")
@_CONFIG
@_STATE_DIR
@_HOST
@_PORT
@_LOG_LEVEL
@_fails_in_one_line
def run(file: Path | None, **overrides: Any) -> None:
    """Run the agent of an enrolled device."""
    _check_managed()
    config = _configured(file, **overrides)
    from edgeflow_agent.runtime.agent import Agent
    from edgeflow_agent.runtime.systemd import Systemd

    agent = Agent(config)
    stop = _StopSignal()
    agent.start()
    system = Systemd(agent.alive)
    system.ready(f"answers at {agent.url}")
    click.echo(f"agent answers at {agent.url}")
    sys.stdout.flush()
    stop.wait()
    system.stopping()
    agent.stop()


@main.command()
@_CONFIG
@_STATE_DIR
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_fails_in_one_line
def status(file: Path | None, as_json: bool, **overrides: Any) -> None:
    """Show what this device serves."""
    config = configuration.load(file, overrides=overrides)
    from edgeflow_agent.runtime import inspection

    facts = inspection.inspect(config.state_dir, _ask)
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        click.echo(f"{name + ':':<12} {value if value not in ('', None) else '-'}")


def _ask(url: str) -> dict[str, Any] | None:
    """The JSON answer of the agent on this device; None when it does not answer."""
    import urllib.request  # a tenth of a start that does not need it

    try:
        with urllib.request.urlopen(url, timeout=3) as response:  # noqa: S310 - the agent's own address
            value = json.load(response)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


if __name__ == "__main__":
    main()
