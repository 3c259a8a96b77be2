"""A rollout on a terminal: its waves as bars, once or live."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import click
import msgspec

from edgeflow_mlflow.api import records

_WIDTH = 40
# What a bar shows, in this order, with its colour.
_PARTS: tuple[tuple[str, frozenset[str], str], ...] = (
    ("done", frozenset({"deployed"}), "green"),
    ("failed", frozenset({"failed", "rejected", "rolled_back", "timed_out"}), "red"),
    (
        "under way",
        frozenset({"offered", "accepted", "downloading", "verifying", "loading", "trial"}),
        "yellow",
    ),
    ("asked", frozenset({"pending"}), "blue"),
)


def show(found: records.RolloutProgress) -> None:
    """Once, on standard output."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(_picture(found))


class Live:
    """The same again and again in place; as JSON one line at each change."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._live: Any = None
        self._last = b""

    def __enter__(self) -> Live:
        if not self._as_json:
            from rich.live import Live as Screen

            self._live = Screen(refresh_per_second=4)
            self._live.start()
        return self

    def update(self, found: records.RolloutProgress) -> None:
        """Show how it stands now."""
        if self._live is not None:
            self._live.update(_picture(found))
            return
        line = msgspec.json.encode(found)
        if line != self._last:
            self._last = line
            click.echo(line.decode())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()


def _picture(found: records.RolloutProgress) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble(
        (f"{found.deployment} rollout {found.number}", "bold"),
        f"  {found.model}/{found.version}  ",
        (found.state, "red" if found.state in ("paused", "failed") else "green"),
        f"  {found.why}",
    )
    table = Table("WAVE", "STATE", "", "DEVICES", "", box=None, header_style="bold", pad_edge=False)
    for wave in found.waves:
        table.add_row(str(wave.number), wave.state, _bar(wave), str(wave.targets), _told(wave))
    lines = [Text(f"{item.gate}: {item.verdict}, {item.text}") for item in _readings(found)]
    return Group(head, table, *lines)


def _readings(found: records.RolloutProgress) -> list[records.Reading]:
    return next((wave.readings for wave in found.waves if wave.number == found.wave), [])


def _bar(wave: records.WaveView) -> Any:
    from rich.text import Text

    bar, used = Text(), 0
    total = max(wave.targets, 1)
    for _, states, colour in _PARTS:
        length = round(_WIDTH * _count(wave.counts, states) / total)
        bar.append("━" * length, colour)
        used += length
    return bar.append("─" * max(0, _WIDTH - used), "dim")


def _told(wave: records.WaveView) -> str:
    parts = [(name, _count(wave.counts, states)) for name, states, _ in _PARTS]
    parts += [("waiting", wave.waiting), ("held", wave.held)]
    return ", ".join(f"{count} {name}" for name, count in parts if count)


def _count(counts: Mapping[str, int], states: frozenset[str]) -> int:
    return sum(count for state, count in counts.items() if state in states)
