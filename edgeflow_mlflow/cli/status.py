"""`edgeflow status`: the fleet at a glance."""

from __future__ import annotations

import click

from edgeflow_mlflow.cli import options, show

_FLAGS = ("online", "offline", "never_seen", "stale", "failing", "drifting", "updating", "behind", "held")


@click.command()
@options.server
@options.as_json
@click.option("--selector", default="", help="Labels, as site=lyon,arm!=left.")
@click.option("--which", type=click.Choice(_FLAGS), help="List the targets of that kind.")
def status(server: str | None, json: bool, selector: str, which: str | None) -> None:
    """How the fleet is: what is online, failing or drifting, and which versions it serves."""
    client = show.client(server)
    if which is not None:
        found = client.glance(selector=selector, flag=which)
        if json:
            show.as_json(found)
            return
        show.table(
            ("TARGET", "IS", "SERVES", "DEPLOYMENT", "STEP", "REASON", "SEEN"),
            [
                (
                    item.id,
                    ", ".join(item.flags),
                    f"{item.model}/{item.version}" if item.model else "nothing",
                    item.deployment,
                    item.step,
                    item.reason,
                    show.ago(item.last_seen_at),
                )
                for item in found
            ],
            empty=f"No target is {which.replace('_', ' ')}.",
        )
        return
    seen = client.overview(selector)
    if json:
        show.as_json(seen)
        return
    counted = [(name.replace("_", " "), seen.flags[name]) for name in _FLAGS if seen.flags.get(name)]
    show.table(("STATE", "TARGETS"), [("all", seen.targets), *counted], empty="")
    click.echo()
    show.table(
        ("SERVES", "TARGETS"),
        [
            (f"{item.model}/{item.version}" if item.model else "nothing", item.targets)
            for item in seen.versions
        ],
        empty="No targets. Let one in: edgeflow tokens create",
    )
