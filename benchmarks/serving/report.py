"""From measurements to a table, a picture and a verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.load import Load

OURS = "edgeflow-agent"
RAW = "onnxruntime itself"
_BYTES = "image as bytes, 8 connections"
_JSON = "image as JSON, 2 connections"
_IRIS = "iris, 8 connections"
_MANY = "iris, 64 connections"

# By server, then by cell: what was measured in each round.
Found = Mapping[str, Mapping[str, list[Any]]]


def of_rate(per_second: float) -> Load:
    """Requests a second of what has no connections."""
    return Load(per_second=per_second, p50_ms=0, p99_ms=0, errors=0)


def median(values: Sequence[Any]) -> Any:
    """The median of figures, or of loads figure by figure."""
    if not isinstance(values[0], Load):
        return statistics.median(values)
    return Load(
        per_second=statistics.median(item.per_second for item in values),
        p50_ms=statistics.median(item.p50_ms for item in values),
        p99_ms=statistics.median(item.p99_ms for item in values),
        errors=sum(item.errors for item in values),
    )


def _medians(measured: Found) -> dict[str, dict[str, Any]]:
    return {
        name: {cell: median(values) for cell, values in cells.items() if values}
        for name, cells in measured.items()
    }


def table(measured: Found, cells: Sequence[str]) -> str:
    """Markdown: requests a second (p50 / p99 in milliseconds), memory and start."""
    medians = _medians(measured)
    head = ["server", *cells, "memory iris / image, MB", "first answer iris / image, s"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, found in medians.items():
        row = [name]
        for cell in cells:
            value = found.get(cell)
            row.append("" if value is None else _cell(value))
        row.append(_pair(found, "memory", "{:.0f}"))
        row.append(_pair(found, "start", "{:.2f}"))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _cell(value: Load) -> str:
    text = f"{value.per_second:,.0f}"
    if value.p50_ms:
        text += f" ({value.p50_ms:.2f} / {value.p99_ms:.2f})"
    return text + (f", {value.errors} failed" if value.errors else "")


def _pair(found: Mapping[str, Any], what: str, form: str) -> str:
    values = [found.get(f"{what}, {model}") for model in ("iris", "mobilenet")]
    return " / ".join("" if value is None else form.format(value) for value in values) if any(values) else ""


def _times(ours: Sequence[Load], others: Sequence[Load]) -> float:
    """How many times faster: round by round, then the median."""
    pairs = zip(ours, others, strict=True)
    return statistics.median(
        # Who answers nothing for a whole round is beaten.
        mine.per_second / other.per_second if other.per_second else math.inf
        for mine, other in pairs
    )


def goals(measured: Found) -> int:
    """Print whether each goal is kept; the exit code."""
    medians = _medians(measured)
    ours = medians.get(OURS, {})
    if not ours:
        return 0
    checks: list[tuple[str, bool]] = []

    def ratio(peer: str, cell: str, least: float) -> None:
        if cell in medians.get(peer, {}) and cell in ours:
            found = _times(measured[OURS][cell], measured[peer][cell])
            checks.append((f"{cell}: {found:.2f} times {peer}, at least {least:g}", found >= least))

    ratio("mlflow models serve", _IRIS, 25)
    ratio("MLServer", _IRIS, 12)
    for peer in medians:
        if peer not in (OURS, RAW):
            ratio(peer, _JSON, 1)
    ratio(RAW, _BYTES, 0.92)
    p99 = ours[_IRIS].p99_ms
    checks.append((f"{_IRIS}: p99 {p99:.2f} ms, under 1", p99 < 1))
    slower = _times(measured[OURS][_MANY], measured[OURS][_IRIS])
    checks.append((f"64 connections: {slower:.2f} of 8 connections, not slower", slower >= 0.97))
    for model, limit in (("iris", 75), ("mobilenet", 130)):
        memory = ours[f"memory, {model}"]
        checks.append((f"memory with {model}: {memory:.0f} MB, under {limit}", memory < limit))
        start = ours[f"start, {model}"]
        checks.append((f"first answer with {model}: {start:.2f} s, under 0.5", start < 0.5))
    for text, kept in checks:
        print(f"{'kept  ' if kept else 'MISSED'}  {text}")
    return 0 if all(kept for _, kept in checks) else 1


def write(folder: Path, text: str, measured: Found) -> None:
    """The table as Markdown and the iris column as a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    (folder / "iris.svg").write_text(_picture(_medians(measured)), encoding="utf-8")


def _picture(medians: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [(name, found[_IRIS].per_second) for name, found in medians.items() if _IRIS in found]
    rows.sort(key=lambda row: -row[1])
    most = rows[0][1]
    height = 34 * len(rows) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="#fff"/><g font-size="14">',
        '<text x="10" y="22" font-weight="bold">iris over JSON, 8 connections: requests per second</text>',
    ]
    for number, (name, value) in enumerate(rows):
        y = 38 + 34 * number
        colour = "#0b6e99" if name == OURS else "#b8c4cc"
        parts.append(f'<text x="160" y="{y + 18}" text-anchor="end">{name}</text>')
        parts.append(
            f'<rect x="170" y="{y}" width="{max(2, 440 * value / most):.0f}" height="24" fill="{colour}"/>'
        )
        parts.append(f'<text x="{178 + 440 * value / most:.0f}" y="{y + 18}">{value:,.0f}</text>')
    return "\n".join([*parts, "</g></svg>"]) + "\n"
