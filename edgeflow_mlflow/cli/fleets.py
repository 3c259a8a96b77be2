"""`edgeflow fleets`: named sets of devices."""

from __future__ import annotations

import click

from edgeflow_mlflow.api import records
from edgeflow_mlflow.cli import options, show

_selector = click.option("--selector", default="", help="Labels, as site=lyon,arm!=left.")
_targets = click.option("--target", "targets", multiple=True, help="A device; may be given several times.")


@click.group()
def fleets() -> None:
    """Fleets: every device whose labels match, or a list."""


@fleets.command("list")
@options.server
@options.as_json
def listing(server: str | None, json: bool) -> None:
    """Every fleet."""
    found = show.client(server).fleets()
    if json:
        show.as_json(found)
        return
    show.table(
        ("FLEET", "SELECTOR", "TARGETS", "MADE", "BY"),
        [
            (item.name, item.selector, len(item.targets), show.ago(item.created_at), item.created_by)
            for item in found
        ],
        empty="No fleets. Make one: edgeflow fleets create lyon --selector site=lyon",
    )


@fleets.command("show")
@options.server
@options.as_json
@click.argument("name")
def one(server: str | None, json: bool, name: str) -> None:
    """A fleet and who belongs to it now."""
    found = show.client(server).fleet(name)
    if json:
        show.as_json(found)
        return
    click.echo(f"{found.name}: {found.selector or 'a list'}")
    show.table(("TARGET",), [(item,) for item in found.targets], empty="No device belongs to it.")


@fleets.command()
@options.server
@_selector
@_targets
@click.argument("name")
def create(server: str | None, selector: str, targets: tuple[str, ...], name: str) -> None:
    """Name a set of devices."""
    body = records.FleetCreate(name=name, selector=selector, targets=list(targets))
    _say(show.client(server).create_fleet(body))


@fleets.command()
@options.server
@_selector
@_targets
@click.argument("name")
def change(server: str | None, selector: str, targets: tuple[str, ...], name: str) -> None:
    """Define it anew; its deployments follow."""
    body = records.FleetChange(selector=selector, targets=list(targets))
    _say(show.client(server).change_fleet(name, body))


@fleets.command()
@options.server
@click.argument("name")
def delete(server: str | None, name: str) -> None:
    """Forget a fleet that no deployment uses."""
    show.client(server).delete_fleet(name)
    click.echo(f"{name} is deleted.")


def _say(found: records.FleetView) -> None:
    click.echo(f"{found.name} has {len(found.targets)} devices now.")
