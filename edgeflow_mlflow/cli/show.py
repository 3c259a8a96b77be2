"""How the command line shows things: tables for people, JSON for programs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from edgeflow_mlflow.api import records
from edgeflow_mlflow.client import ApiError, Client

_RETRIES = "1"


def client(server: str | None) -> Client:
    """The server that a command talks to."""
    address = server or os.environ.get("MLFLOW_TRACKING_URI") or "http://127.0.0.1:5000"
    if not address.startswith(("http://", "https://")):
        raise ApiError(f"{address!r} is no server: give --server http://host:port or set MLFLOW_TRACKING_URI")
    # MLflow's client waits for minutes for a server that is away: right for a script, not for a person.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", _RETRIES)
    return Client(address)


def as_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json_text(value))


def json_text(value: Any) -> str:
    """A value as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """A table, or a sentence that says what to do when there is nothing to show."""
    if not rows:
        click.echo(empty)
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    # Text, not words: what devices and people wrote may look like markup.
    shown = Table(*(Column(Text(name)) for name in columns), box=None, header_style="bold", pad_edge=False)
    for row in rows:
        shown.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:  # a pipe: do not cut lines
        console = Console(width=240)
    console.print(shown)


def decisions(found: Sequence[records.AuditEntry]) -> None:
    """The log of decisions, newest first."""
    table(
        ("WHEN", "WHO", "WHAT", "OF", "ROLLOUT", "TARGET", "WHY"),
        [
            (
                f"{item.at:%Y-%m-%d %H:%M:%S}",
                item.actor,
                item.action,
                item.subject,
                item.rollout,
                item.target,
                item.why,
            )
            for item in found
        ],
        empty="No decisions yet.",
    )


def ago(moment: datetime | None) -> str:
    """How long ago, in one unit."""
    if moment is None:
        return "never"
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
