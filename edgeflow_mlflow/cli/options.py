"""Options that every command shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

server = click.option(
    "--server", default=None, help="The server, http://host:port. Default: MLFLOW_TRACKING_URI."
)
why = click.option("--why", default="", help="Why, for the history.")
as_json = click.option("--json", "json", is_flag=True, help="JSON instead of a table.")


def pairs(words: Iterable[str]) -> dict[str, str]:
    """`key=value` words as a dict."""
    found = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise click.BadParameter(f"{word!r} is no label: write key=value")
        found[key] = value
    return found


def joined(labels: Mapping[str, str]) -> str:
    """A dict as `key=value` words."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
