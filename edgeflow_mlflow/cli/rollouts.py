"""`edgeflow rollouts`: how a new version makes its way, and stopping it."""

from __future__ import annotations

import time

import click

from edgeflow_mlflow.api import records
from edgeflow_mlflow.cli import options, show, waves_shown
from edgeflow_mlflow.client import Client

_LOOK_EVERY_S = 1.0
# Exit codes of `watch`, for scripts.
_HALTED, _FAILED, _TIME_OVER = 2, 1, 3


@click.group()
def rollouts() -> None:
    """Rollouts. Begin one with `mlflow deployments create` or `update -t edgeflow -C waves=1,10%,100%`."""


@rollouts.command("list")
@options.server
@options.as_json
@click.argument("deployment")
def listing(server: str | None, json: bool, deployment: str) -> None:
    """A deployment's rollouts, newest first."""
    found = show.client(server).rollouts(deployment)
    if json:
        show.as_json(found)
        return
    show.table(
        ("ROLLOUT", "MODEL", "STATE", "WAVE", "BEGUN", "BY", "REASON", "WHY SO"),
        [
            (
                item.number,
                f"{item.model}/{item.version}",
                item.state,
                f"{item.wave}/{len(item.waves)}",
                show.ago(item.created_at),
                item.created_by,
                item.reason,
                item.why,
            )
            for item in found
        ],
        empty="No rollouts.",
    )


@rollouts.command("show")
@options.server
@options.as_json
@click.argument("deployment")
@click.argument("number", type=int, required=False)
def one(server: str | None, json: bool, deployment: str, number: int | None) -> None:
    """One rollout wave by wave; the newest when no number is given."""
    found = show.client(server).rollout(deployment, number)
    if json:
        show.as_json(found)
        return
    waves_shown.show(found)


@rollouts.command()
@options.server
@options.as_json
@click.argument("deployment")
@click.argument("number", type=int, required=False)
@click.option("--wave", type=int, default=0, help="Of one wave.")
@click.option("--state", default="", help="In one state: waiting, trial, deployed, failed, …")
def targets(
    server: str | None, json: bool, deployment: str, number: int | None, wave: int, state: str
) -> None:
    """The devices of a rollout and how each stands."""
    client = show.client(server)
    number = number if number is not None else client.rollout(deployment).number
    found = client.rollout_targets(deployment, number, wave=wave, state=state)
    if json:
        show.as_json(found)
        return
    show.table(
        ("TARGET", "WAVE", "STATE", "ATTEMPT", "REASON", "MESSAGE", "CHANGED"),
        [
            (
                item.target,
                item.wave,
                item.execution.state if item.execution else "held" if item.held else "waiting",
                item.attempts or "",
                item.execution.reason if item.execution else "",
                item.execution.message if item.execution else "",
                show.ago(item.execution.updated_at) if item.execution else "",
            )
            for item in found
        ],
        empty="No such devices.",
    )


@rollouts.command()
@options.server
@options.as_json
@click.argument("deployment")
@click.option("--timeout", type=float, default=None, help="Give up after so many seconds (exit code 3).")
@click.pass_context
def watch(
    context: click.Context, server: str | None, json: bool, deployment: str, timeout: float | None
) -> None:
    """Follow the newest rollout to its end. Exit code 0: it succeeded; 1: it failed, was aborted, superseded;
    2: it is paused and waits for somebody."""
    context.exit(follow(show.client(server), deployment, timeout_s=timeout, as_json=json))


def follow(client: Client, deployment: str, *, timeout_s: float | None, as_json: bool) -> int:
    """Show the newest rollout until it has ended or waits for somebody; the exit code."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with waves_shown.Live(as_json=as_json) as screen:
        while True:
            found = client.rollout(deployment)
            screen.update(found)
            if found.state != "running":
                return {"succeeded": 0, "paused": _HALTED}.get(found.state, _FAILED)
            if deadline is not None and time.monotonic() >= deadline:
                return _TIME_OVER
            time.sleep(_LOOK_EVERY_S)


@rollouts.command()
@options.server
@click.argument("deployment")
@options.why
def pause(server: str | None, deployment: str, why: str) -> None:
    """Give nobody else the model. Devices that have begun go on."""
    _say(show.client(server).pause(deployment, why), "go on with: edgeflow rollouts resume {}")


@rollouts.command()
@options.server
@click.argument("deployment")
@options.why
def resume(server: str | None, deployment: str, why: str) -> None:
    """Go on. The failures so far are accepted."""
    _say(show.client(server).resume(deployment, why), "follow it with: edgeflow rollouts watch {}")


@rollouts.command()
@options.server
@click.argument("deployment")
@options.why
def approve(server: str | None, deployment: str, why: str) -> None:
    """Let the next wave begin once this one has passed its gates."""
    _say(show.client(server).approve(deployment, why), "follow it with: edgeflow rollouts watch {}")


@rollouts.command()
@options.server
@click.argument("deployment")
@click.option(
    "--devices",
    type=click.Choice(["keep", "revert"]),
    default="keep",
    show_default=True,
    help="Those that have the new model keep it, or go back.",
)
@options.why
def abort(server: str | None, deployment: str, devices: str, why: str) -> None:
    """End the present rollout."""
    body = records.AbortRequest(devices="revert" if devices == "revert" else "keep", why=why)
    _say(show.client(server).abort(deployment, body), "look at it with: edgeflow rollouts show {}")


@rollouts.command()
@options.server
@click.argument("deployment")
@click.option("--to", type=int, default=None, help="A rollout's number. Default: the last that went well.")
@options.why
def rollback(server: str | None, deployment: str, to: int | None, why: str) -> None:
    """Bring an earlier model back, at once, as a rollout of its own."""
    found = show.client(server).roll_back(deployment, records.RollbackRequest(to=to, why=why))
    _say(found, "follow it with: edgeflow rollouts watch {}")


def _say(found: records.RolloutProgress, following: str) -> None:
    told = f": {found.why}" if found.why else ""
    click.echo(f"rollout {found.number} of {found.deployment} is {found.state}{told}")
    click.echo(following.format(found.deployment))


@click.command()
@options.server
@options.as_json
@click.option("--deployment", default="", help="About one deployment.")
@click.option("--target", default="", help="About one device.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
def audit(server: str | None, json: bool, deployment: str, target: str, limit: int) -> None:
    """Who decided what, when and why, newest first."""
    found = show.client(server).audit(subject=deployment, target=target, limit=limit)
    if json:
        show.as_json(found)
    else:
        show.decisions(found)
