"""`edgeflow simulate`: a fleet of devices in one process, on the real wire."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from edgeflow_agent import errors
from edgeflow_agent.wire import topics
from edgeflow_mlflow.cli import options, show

if TYPE_CHECKING:
    from rich.table import Table

    from edgeflow_mlflow.simulation.picture import Picture


def share(text: str) -> float:
    """`5%` or `0.05`."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise click.BadParameter(f"{text!r} is no share: write 5% or 0.05")
    return value


def span(text: str) -> tuple[float, float]:
    """`0.5..3` or `2`, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:\.\.(\d+(?:\.\d+)?))?", text)
    low, high = (float(match[1]), float(match[2] or match[1])) if match else (1.0, 0.0)
    if low > high:
        raise click.BadParameter(f"{text!r} is no time: write 0.5..3 or 2, in seconds")
    return low, high


@click.command()
@options.server
@click.option("--token", default="", help="Enrolment token with as many uses; only for devices that are new.")
@click.option("--devices", default=100, show_default=True, type=click.IntRange(1, 100_000), help="How many.")
@click.option("--prefix", default="sim-", show_default=True, help="What their names begin with.")
@click.option(
    "--state-dir",
    default="edgeflow-simulation-state",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Who they are and what they serve; the same folder is the same fleet.",
)
@click.option("--bad", default="0%", show_default=True, help="Share of devices that a new model fails on.")
@click.option("--offline", default="0%", show_default=True, help="Share of devices that is away at a time.")
@click.option(
    "--install-time", default="0.5..3", show_default=True, help="Seconds of an install, trial apart."
)
@click.option("--labels", default="", help="Labels that they get, as site=lyon,ring=canary.")
@click.option("--http", is_flag=True, help="Poll over HTTP, never MQTT.")
@click.option("--download", is_flag=True, help="Fetch and hash the files for real; nothing is kept.")
@click.option("--seed", default=1, show_default=True, help="The same seed has the same mishaps.")
@click.option("--duration", default=0.0, type=click.FloatRange(0), help="Seconds; 0: until Ctrl-C.")
@click.option("--json", "json", is_flag=True, help="One line of JSON a second instead of a table.")
def simulate(
    server: str | None,
    token: str,
    devices: int,
    prefix: str,
    state_dir: Path,
    bad: str,
    offline: str,
    install_time: str,
    labels: str,
    http: bool,
    download: bool,
    seed: int,
    duration: float,
    json: bool,
) -> None:
    """Play many devices, to try out rollouts or to load a server."""
    from edgeflow_mlflow.simulation import enrolling
    from edgeflow_mlflow.simulation.fleet import Fleet
    from edgeflow_mlflow.simulation.folder import FleetFolder
    from edgeflow_mlflow.simulation.memory import Character
    from edgeflow_mlflow.simulation.web import Web

    fastest, slowest = span(install_time)
    character = Character(
        seed=seed,
        bad=share(bad),
        offline=share(offline),
        fastest_s=fastest,
        slowest_s=slowest,
        http=http,
        download=download,
    )
    wanted = options.pairs(word for word in labels.split(",") if word)
    names = [f"{prefix}{number:04d}" for number in range(1, devices + 1)]
    address = server or os.environ.get("MLFLOW_TRACKING_URI") or "http://127.0.0.1:5000"
    stopping = threading.Event()
    try:
        topics.check_target_id(names[-1])
        _allow_files(2 * devices + 200)
        folder = FleetFolder(state_dir)
        with contextlib.closing(folder), _signals(stopping.set):
            web = Web(address)
            known = enrolling.enrol(web, folder, names, token, on_progress=_progress(json), stopping=stopping)
            if wanted:
                _label(address, set(known), wanted)
            with _shown(json) as on_second:
                fleet = Fleet(web, folder, known.values(), character, on_second=on_second)
                with _signals(fleet.stop):
                    if not stopping.is_set():
                        on_second(fleet.run(duration))
    except errors.EdgeflowError as error:
        raise click.ClickException(str(error)) from error


def _allow_files(count: int) -> None:
    """Each device has a socket; many systems allow 1,024 unless asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count if unlimited else min(count, hard), hard))
    if not unlimited and hard < count:
        raise errors.ConfigError(
            f"this system allows {hard} open files, {count} are needed: raise `ulimit -n`"
        )


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda number, frame: stop()) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _progress(json: bool) -> Callable[[int], None]:
    def told(count: int) -> None:
        if not json:
            click.echo(f"enrolled {count}", err=True)

    return told


def _label(address: str, names: set[str], wanted: dict[str, str]) -> None:
    """Labels are an operator's to give: with MLflow's basic-auth it needs a user who may."""
    client = show.client(address)
    for target in client.targets():
        if target.id in names and not wanted.items() <= target.labels.items():
            client.label(target.id, {**target.labels, **wanted})


@contextlib.contextmanager
def _shown(json: bool) -> Iterator[Callable[[Picture], None]]:
    if json:
        yield lambda seen: click.echo(msgspec.json.encode(seen).decode())
        return
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        yield lambda seen: live.update(_table(seen), refresh=True)


def _table(seen: Picture) -> Table:
    from rich.table import Table

    table = Table("WHAT", "DEVICES", "", box=None, header_style="bold", pad_edge=False)
    table.add_row(
        "all", str(seen.devices), f"{seen.seconds:.0f} s, {seen.cpu_s:.0f} s CPU, {seen.rss_mb:.0f} MiB"
    )
    table.add_row("connected", str(seen.connected), f"{seen.sent} sent, {seen.received} received by MQTT")
    table.add_row("away", str(seen.away), "")
    table.add_row(
        "failed", str(seen.failed), ", ".join(f"{count} {word}" for word, count in seen.reasons.items())
    )
    table.add_row("reports waiting", str(seen.waiting_reports), f"{seen.requests} requests over HTTP")
    for model in seen.models:
        table.add_row(f"serve {model.name}/{model.version}", str(model.devices), model.digest[:12])
    for state, count in seen.states.items():
        table.add_row(f"state {state}", str(count), "")
    return table
