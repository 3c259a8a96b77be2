"""`edgeflow doctor`: what goes wrong most, looked for from here."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import click

from edgeflow_agent.version import VERSION
from edgeflow_mlflow.api import records
from edgeflow_mlflow.cli import options, show
from edgeflow_mlflow.client import ApiError, Client

_SKEW_S = 30.0
_SLOW_S = 2.0
_WAIT_S = 5.0
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. `level` is ok, hint or problem; `advice` says what to do next."""

    what: str
    level: str
    text: str
    advice: str = ""


@click.command()
@options.server
@options.as_json
@click.pass_context
def doctor(context: click.Context, server: str | None, json: bool) -> None:
    """Look for what goes wrong most. Exit code 1: there is a problem."""
    found = list(look(show.client(server)))
    if json:
        show.as_json([vars(item) for item in found])
    else:
        for item in found:
            colour = {"ok": "green", "hint": "yellow", "problem": "red"}[item.level]
            click.echo(f"{click.style(f'{item.level:<8}', fg=colour)} {item.what:<10} {item.text}")
            if item.advice:
                click.echo(f"{'':<20}{item.advice}")
    context.exit(1 if any(item.level == "problem" for item in found) else 0)


def look(client: Client) -> Iterator[Finding]:
    """Everything in turn; what cannot be reached ends it."""
    began = time.monotonic()
    try:
        health = client.health()
    except ApiError as error:
        advice = "start `edgeflow server`, or name another one with --server or MLFLOW_TRACKING_URI"
        if error.status == 403:
            advice = "the server does not know this host name: start it with --allowed-hosts"
        elif error.status in (401, 407):
            advice = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        yield Finding(what="server", level="problem", text=str(error.message), advice=advice)
        return
    took = time.monotonic() - began
    yield Finding(what="server", level="ok", text=f"{client.address} answers after {took * 1000:.0f} ms")
    if took > _SLOW_S:
        yield Finding(
            what="server",
            level="hint",
            text="that is slow",
            advice="look at the load of its machine, and whether something else locks its database",
        )
    yield _versions(health)
    checks: tuple[Callable[[Client], Iterator[Finding]], ...] = (_clock, _hub, _devices, _models)
    for check in checks:
        try:
            yield from check(client)
        except ApiError as error:
            yield Finding(what=check.__name__.strip("_"), level="problem", text=str(error.message))


def _versions(health: records.Health) -> Finding:
    import mlflow

    if health.version != VERSION:
        return Finding(
            what="versions",
            level="hint",
            text=f"this is edgeflow {VERSION}, the server is {health.version}",
            advice=f"pip install edgeflow-mlflow=={health.version}",
        )
    return Finding(what="versions", level="ok", text=f"edgeflow {VERSION}, mlflow {mlflow.__version__}")


def _clock(client: Client) -> Iterator[Finding]:
    request = Request(f"{client.address}/api/v1/health", method="HEAD")  # noqa: S310 - http or https, see show.client
    try:
        with urlopen(request, timeout=_WAIT_S) as answer:  # noqa: S310
            said = answer.headers.get("Date")
    except OSError as error:
        yield Finding(what="clock", level="hint", text=f"cannot be compared: {error}")
        return
    if not said:
        return
    skew = (datetime.now(UTC) - parsedate_to_datetime(said)).total_seconds()
    if abs(skew) > _SKEW_S:
        yield Finding(
            what="clock",
            level="problem",
            text=f"this machine and the server differ by {skew:+.0f} s",
            advice="devices refuse documents that are from the future or too old: let NTP set both clocks",
        )
    else:
        yield Finding(what="clock", level="ok", text=f"differs by {abs(skew):.0f} s")


def _hub(client: Client) -> Iterator[Finding]:
    ready = client.ready()
    if not ready.hub:
        yield Finding(
            what="hub",
            level="problem",
            text="no hub runs: nothing is rolled out and no alert is sent",
            advice="look at the server's log; two servers on one SQLite file, or a locked database, do this",
        )
        return
    yield Finding(what="hub", level="ok", text=f"runs as {ready.hub_holder}")
    if ready.mqtt_error:
        yield Finding(
            what="mqtt",
            level="problem",
            text=ready.mqtt_error,
            advice="another program may have the port: --mqtt-port 0 takes a free one",
        )
    elif not ready.mqtt:
        yield Finding(
            what="mqtt", level="hint", text="is off: devices poll over HTTP", advice="[mqtt] broker"
        )
    else:
        yield _reach(ready.mqtt)


def _reach(address: str) -> Finding:
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or 1883
    try:
        socket.create_connection((host, port), _WAIT_S).close()
    except OSError as error:
        return Finding(
            what="mqtt",
            level="problem",
            text=f"{address} cannot be reached from here: {error}",
            advice="a firewall, or a name that only the server knows: set [mqtt] host",
        )
    if host in ("127.0.0.1", "localhost", "::1"):
        return Finding(
            what="mqtt",
            level="hint",
            text=f"{address} is for this machine only; other devices poll over HTTP",
            advice="docs/operations.md says how to open it with a certificate",
        )
    return Finding(what="mqtt", level="ok", text=f"{address} can be reached")


def _devices(client: Client) -> Iterator[Finding]:
    targets = client.targets()
    if not targets:
        yield Finding(what="devices", level="hint", text="none yet", advice="edgeflow tokens create")
        return
    states = Counter(item.status for item in targets)
    yield Finding(
        what="devices",
        level="ok" if not states["offline"] else "hint",
        text=", ".join(f"{number} {name.replace('_', ' ')}" for name, number in sorted(states.items())),
        advice="edgeflow status --which offline" if states["offline"] else "",
    )
    polling = [item.id for item in targets if item.status == "online" and not item.connected]
    if polling:
        yield Finding(
            what="transport",
            level="hint",
            text=f"{len(polling)} online devices poll over HTTP ({_few(polling)}): they hear of news later",
            advice="edgeflow-agent's log says why MQTT does not work for them",
        )
    behind = [item.id for item in targets if item.status == "online" and not item.in_sync]
    if behind:
        yield Finding(
            what="in sync",
            level="hint",
            text=f"{len(behind)} online devices do not serve what they should ({_few(behind)})",
            advice=f"edgeflow targets explain {behind[0]}",
        )
    versions = Counter(item.actual.agent_version for item in targets if item.actual.agent_version)
    if len(versions) > 1:
        text = ", ".join(f"{number} with {name}" for name, number in versions.most_common())
        yield Finding(what="agents", level="hint", text=f"of several releases: {text}")


def _models(client: Client) -> Iterator[Finding]:
    without = []
    for deployment in client.deployments():
        for name in deployment.targets[:1]:
            found = client.lineage(name).model
            if found is not None and not found.baseline_sha256:
                without.append(deployment.name)
    if without:
        yield Finding(
            what="baseline",
            level="hint",
            text=f"the models of {_few(without)} have none: drift is measured against what devices saw first",
            advice="log them with edgeflow_mlflow.log_model(…, samples=training_data)",
        )
    for recall in client.recalls(standing=True):
        if not recall.done:
            yield Finding(
                what="recall",
                level="hint",
                text=f"{recall.id} is not done",
                advice=f"edgeflow recall show {recall.id}",
            )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
