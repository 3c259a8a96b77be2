"""The report of a recall as one page without scripts, to print or to file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape

from edgeflow_mlflow.api import records

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 70em; margin: 2em auto }
table { border-collapse: collapse; width: 100%; margin: .5em 0 1.5em }
th, td { text-align: left; vertical-align: top; padding: .25em .6em; border-bottom: 1px solid #ccc }
th { border-bottom: 2px solid #444 }
@media print { body { margin: 0; max-width: none } thead { display: table-header-group } }
"""


def render(report: records.RecallReport) -> str:
    """The page."""
    recall = report.detail.recall
    served = {item.target: item.served for item in report.served}
    parts = [
        f"<h1>Recall {escape(recall.id)}</h1>",
        _table(
            (),
            [
                ("Data sets", "; ".join(recall.datasets)),
                ("Why", recall.why),
                ("Begun", f"{_when(recall.created_at)} by {recall.created_by}"),
                ("Lifted", _lifted(recall)),
                (
                    "State",
                    ", ".join(f"{count} {name}" for name, count in recall.counts.items()) or "no device",
                ),
                ("Fleet", report.fleet),
                ("Report made", _when(report.made_at)),
            ],
        ),
        "<h2>Model versions made from the data</h2>",
        _table(
            ("Version", "How it comes from the data"),
            [(f"{item.model}/{item.version}", "; ".join(item.way)) for item in report.detail.versions],
        ),
        "<h2>Devices</h2>",
        _table(
            ("Device", "Deployment", "Had", "Decided", "Goes to", "Now", "Corrected", "Served since"),
            [
                (
                    item.target,
                    item.deployment,
                    f"{item.model}/{item.version} ({', '.join(item.bonds)})" if item.bonds else "found later",
                    item.remedy,
                    item.goes_to,
                    item.status + (f": {item.error}" if item.error else ""),
                    _when(item.corrected_at),
                    "; ".join(_interval(row) for row in reversed(served.get(item.target, []))),
                )
                for item in report.detail.devices
            ],
        ),
        "<h2>Decisions</h2>",
        _table(
            ("When", "Who", "What", "Of", "Rollout", "Device", "Why"),
            [
                (_when(row.at), row.actor, row.action, row.subject, row.rollout or "", row.target, row.why)
                for row in report.decisions
            ],
        ),
    ]
    title = f"<title>Recall {escape(recall.id)}</title>"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8">{title}<style>{_STYLE}</style>'
    return f"{head}<body>{''.join(parts)}</body></html>"


def _lifted(recall: records.RecallView) -> str:
    if recall.lifted_at is None:
        return "no"
    return f"{_when(recall.lifted_at)} by {recall.lifted_by}: {recall.lift_why}"


def _interval(row: records.ServedView) -> str:
    name = f"{row.model}/{row.version}" if row.model else row.digest[:12]
    return f"{name} {_when(row.since)} to {_when(row.until) if row.until else 'now'}"


def _when(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Device-supplied text is escaped, all of it."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
