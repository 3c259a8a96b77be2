"""`edgeflow tokens`: let devices in."""

from __future__ import annotations

import re

import click

from edgeflow_mlflow.cli import options, show

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """`90s`, `15m`, `24h` or `7d`, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no duration: write 90s, 15m, 24h or 7d")
    return float(match[1]) * _UNITS[match[2]]


@click.group()
def tokens() -> None:
    """Enrolment tokens: what a device needs once, to get its identity."""


@tokens.command()
@options.server
@options.as_json
@click.option("--uses", default=1, show_default=True, help="How many devices it lets in.")
@click.option("--ttl", default="24h", show_default=True, help="How long it is good for: 90s, 15m, 24h, 7d.")
@click.option("--target", default=None, help="Let in only this target; it may exist already.")
@click.option(
    "--label", "labels", multiple=True, help="key=value for the devices that it lets in; repeatable."
)
@click.option("--note", default="", help="What it is for.")
def create(
    server: str | None,
    json: bool,
    uses: int,
    ttl: str,
    target: str | None,
    labels: tuple[str, ...],
    note: str,
) -> None:
    """Create a token. It is shown once."""
    from edgeflow_mlflow.api import records

    client = show.client(server)
    created = client.create_token(
        records.TokenCreate(
            uses=uses, ttl_s=seconds(ttl), target=target, labels=options.pairs(labels), note=note
        )
    )
    if json:
        show.as_json(created)
        return
    click.echo(created.token)
    click.echo(
        f"\nOn the device:\n  edgeflow-agent enroll --server {client.address} --token {created.token} "
        f"--target {target or 'robot-07'}\n  edgeflow-agent run",
        err=True,
    )


@tokens.command("list")
@options.server
@options.as_json
def listing(server: str | None, json: bool) -> None:
    """Tokens without their secrets."""
    found = show.client(server).tokens()
    if json:
        show.as_json(found)
        return
    show.table(
        ("ID", "USES LEFT", "EXPIRES", "TARGET", "LABELS", "NOTE", "STATE"),
        [
            (
                item.id,
                f"{item.uses_left} of {item.uses}",
                f"{item.expires_at:%Y-%m-%d %H:%M}",
                item.target,
                options.joined(item.labels),
                item.note,
                "revoked" if item.revoked else "",
            )
            for item in found
        ],
        empty="No tokens. Create one with: edgeflow tokens create",
    )


@tokens.command()
@options.server
@click.argument("token_id")
def revoke(server: str | None, token_id: str) -> None:
    """Make a token worthless; devices that it let in stay."""
    show.client(server).revoke_token(token_id)
    click.echo(f"revoked {token_id}")
