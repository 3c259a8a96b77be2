"""The part of `edgeflow alerts` that sets up rules and receivers, from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from edgeflow_agent import typed
from edgeflow_mlflow.api import records
from edgeflow_mlflow.cli import options, show

_file = click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A JSON or TOML file; docs/alerts.md shows one of each.",
)


@click.group()
def rule() -> None:
    """One rule: look at it, set it, try it on the past, delete it."""


@rule.command("show")
@options.server
@click.argument("name")
def show_rule(server: str | None, name: str) -> None:
    """A rule as JSON."""
    show.as_json(show.client(server).alert_rule(name))


@rule.command("set")
@options.server
@_file
@click.argument("name")
def set_rule(server: str | None, path: Path | None, name: str) -> None:
    """Set a rule, whole, from a file."""
    found = show.client(server).put_alert_rule(name, _read(records.RulePut, path))
    click.echo(f"rule {found.name} is {'on' if found.enabled else 'off'}.")


@rule.command("try")
@options.server
@options.as_json
@_file
def try_rule(server: str | None, json: bool, path: Path | None) -> None:
    """How often a rule would have fired lately."""
    found = show.client(server).try_alert_rule(_read(records.RulePut, path))
    if json:
        show.as_json(found)
    elif found.can_tell:
        click.echo(f"{found.times} times on {found.objects} objects since {found.since:%Y-%m-%d %H:%M} UTC")
    else:
        click.echo(found.text)


@rule.command("delete")
@options.server
@click.argument("name")
def delete_rule(server: str | None, name: str) -> None:
    """Delete a rule; a starter rule is as it was shipped again."""
    show.client(server).delete_alert_rule(name)
    click.echo(f"rule {name} is deleted.")


@click.group()
def receiver() -> None:
    """One receiver: look at it, set it, see what it was sent, delete it."""


@receiver.command("show")
@options.server
@click.argument("name")
def show_receiver(server: str | None, name: str) -> None:
    """A receiver as JSON, without its secrets."""
    show.as_json(show.client(server).receiver(name))


@receiver.command("set")
@options.server
@_file
@click.argument("name")
def set_receiver(server: str | None, path: Path | None, name: str) -> None:
    """Set a receiver from a file; secrets that the file leaves out stay."""
    show.client(server).put_receiver(name, _read(records.ReceiverPut, path))
    click.echo(f"receiver {name} is set; try it: edgeflow alerts test {name}")


@receiver.command("delete")
@options.server
@click.argument("name")
def delete_receiver(server: str | None, name: str) -> None:
    """Tell it nothing any more."""
    show.client(server).delete_receiver(name)
    click.echo(f"receiver {name} is deleted.")


@receiver.command()
@options.server
@options.as_json
@click.argument("name")
def sent(server: str | None, json: bool, name: str) -> None:
    """What it was sent, and whether that arrived."""
    found = show.client(server).deliveries(name)
    if json:
        show.as_json(found)
        return
    show.table(
        ("WHEN", "STATE", "TRIES", "WHAT", "ERROR"),
        [
            (f"{item.created_at:%Y-%m-%d %H:%M:%S}", item.state, item.attempts, item.title, item.error)
            for item in found
        ],
        empty="Nothing yet.",
    )


def _read(kind: Any, path: Path | None) -> Any:
    if path is None:
        raise click.UsageError("give --file: a JSON or TOML file; docs/alerts.md shows one")
    content = path.read_bytes()
    try:
        if path.suffix == ".toml":
            return typed.convert(kind, msgspec.toml.decode(content))
        return typed.read(kind, content)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: {error}") from error
