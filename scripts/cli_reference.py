#!/usr/bin/env python
"""Write docs/cli.md from the commands themselves; with --check, say whether it is up to date."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from edgeflow_mlflow.cli.main import main as root

PLACE = Path(__file__).parents[1] / "docs" / "cli.md"
_HEAD = """# The command `edgeflow`

Made from the commands by `scripts/cli_reference.py`; a test holds it to them. Commands that ask a server
take `--server http://host:port`, or `MLFLOW_TRACKING_URI`; `--json` prints the API's answer, for programs.
Exit codes: 0 it went well, 1 it did not, 2 the command was typed wrongly; others are said where they are.
"""


def pages(command: click.Command, name: str, above: click.Context | None = None) -> Iterator[str]:
    """A command and all below it, with the settings that a command has from those above it."""
    context = click.Context(
        command,
        info_name=name,
        parent=above,
        max_content_width=100,
        terminal_width=100,
        **command.context_settings,
    )
    words = context.command_path
    level = "##" if words.count(" ") <= 1 else "###"
    if above is not None:
        yield f"{level} `{words}`\n\n```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for below in sorted(command.commands):
            yield from pages(command.commands[below], below, context)


def text() -> str:
    """The whole reference."""
    return _HEAD + "\n" + "\n".join(pages(root, "edgeflow"))


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(
            0
            if PLACE.read_text(encoding="utf-8") == text()
            else "docs/cli.md is old: run scripts/cli_reference.py"
        )
    PLACE.write_text(text(), encoding="utf-8")
