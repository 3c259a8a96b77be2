"""`edgeflow lineage` and `edgeflow diff`: from a device to the data, and from the data to the devices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from edgeflow_mlflow.api import records
from edgeflow_mlflow.cli import options, show

_SHOWN_SAME = 6


def moment(context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    """A moment as somebody typed it; without a zone it is UTC."""
    del context, parameter
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no moment: write 2026-03-03T12:00") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


at_option = click.option("--at", callback=moment, help="At a moment in the past, 2026-03-03T12:00 (UTC).")


def dataset_options(command: Any) -> Any:
    """Which data set: any of these, in all experiments."""
    for option in (
        click.option("--dataset", "dataset_name", default="", help="Data set by its name."),
        click.option("--digest", default="", help="By MLflow's digest, which sees the first rows only."),
        click.option("--content", default="", help="By the SHA-256 of all its content (log_dataset)."),
        click.option("--dataset-id", default="", help="By the id that `lineage datasets` shows."),
        click.option("--any-use", is_flag=True, help="Also models that were only tested with it."),
    ):
        command = option(command)
    return command


def chosen(dataset_name: str, digest: str, content: str, dataset_id: str) -> dict[str, str]:
    """The data set as the client takes it."""
    given = {"name": dataset_name, "digest": digest, "content": content, "dataset": dataset_id}
    found = {name: value for name, value in given.items() if value}
    if not found:
        raise click.UsageError("say which data set: --dataset NAME, --digest, --content or --dataset-id")
    return found


@click.group()
def lineage() -> None:
    """Where models come from, and where data went."""


@lineage.command("target")
@options.server
@options.as_json
@at_option
@click.argument("target")
def of_target(server: str | None, json: bool, at: datetime | None, target: str) -> None:
    """Which run and which data produced the model on a device."""
    found = show.client(server).lineage(target, at)
    if json:
        show.as_json(found)
        return
    show.table(("", ""), _told(found), empty="Nothing is known.")


def _told(found: records.TargetLineage) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = [("target", found.target), ("at", f"{found.at:%Y-%m-%d %H:%M:%S} UTC")]
    if found.served is not None:
        served = found.served
        rows.append(("serves", f"{served.model}/{served.version}" if served.model else served.digest))
        rows.append(("since", f"{served.since:%Y-%m-%d %H:%M:%S} UTC"))
        if served.deployment:
            rows.append(("by", f"rollout {served.rollout} of deployment {served.deployment}"))
    if found.model is not None:
        rows += _model(found.model)
    rows += [(f"finding: {item.what}", item.why) for item in found.findings]
    return rows


def _model(model: records.ModelFactsView) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = [("digest", model.digest)]
    if model.run is not None:
        run = model.run
        rows.append(("run", f"{run['name'] or ''} {run['id']}".strip()))
        rows.append(("trained by", f"{run['user']} with {run['source']}"))
        if run["commit"]:
            rows.append(("commit", run["commit"]))
        rows.append(("params", _pairs(run["params"])))
        rows.append(
            ("metrics", ", ".join(f"{name}={value}" for name, value in sorted(run["metrics"].items())))
        )
    for item in model.datasets:
        content = f", sha256 {item.content[:16]}…" if item.content else ""
        rows.append(("data set", f"{item.name} {item.digest}{content} ({item.context or 'no context'})"))
        rows += [("", step) for step in item.way]
    if model.baseline_sha256:
        rows.append(("baseline", model.baseline_sha256))
    return [*rows, *((f"gap: {gap.what}", gap.why) for gap in model.gaps)]


def _pairs(found: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(found.items()))


@lineage.command()
@options.server
@options.as_json
@at_option
@dataset_options
def devices(
    server: str | None,
    json: bool,
    at: datetime | None,
    any_use: bool,
    dataset_name: str,
    digest: str,
    content: str,
    dataset_id: str,
) -> None:
    """Which devices run a model trained on a data set."""
    found = show.client(server).dataset_reach(
        at=at, any_use=any_use, **chosen(dataset_name, digest, content, dataset_id)
    )
    if json:
        show.as_json(found)
        return
    show.table(
        ("TARGET", "MODEL", "STATUS", "SINCE", "UNTIL", "WAY"),
        [
            (
                item.target,
                f"{item.model}/{item.version}",
                item.status,
                f"{item.since:%Y-%m-%d %H:%M}",
                "" if item.until is None else f"{item.until:%Y-%m-%d %H:%M}",
                "; ".join(item.way),
            )
            for item in sorted(found.devices, key=lambda item: item.target)
        ],
        empty=f"No device; {len(found.versions)} versions were trained on it (--json lists them).",
    )


@lineage.command()
@options.server
@options.as_json
@click.argument("words", default="")
def datasets(server: str | None, json: bool, words: str) -> None:
    """Data sets that models were made from; WORDS is how a name or digest begins."""
    found = show.client(server).datasets(words)
    if json:
        show.as_json(found)
        return
    show.table(
        ("NAME", "DIGEST", "SHA-256", "SOURCE", "ID"),
        [(item.name, item.digest, item.content[:16], item.source[:60], item.id) for item in found],
        empty="No data sets; training scripts log them with edgeflow_mlflow.log_dataset or mlflow.log_input.",
    )


@lineage.command()
@options.server
@options.as_json
@click.argument("target")
def served(server: str | None, json: bool, target: str) -> None:
    """Everything that a device served, the newest first."""
    found = show.client(server).served(target)
    if json:
        show.as_json(found)
        return
    show.table(
        ("SINCE", "UNTIL", "MODEL", "DEPLOYMENT", "ROLLOUT", "DIGEST"),
        [
            (
                f"{item.since:%Y-%m-%d %H:%M:%S}",
                "now" if item.until is None else f"{item.until:%Y-%m-%d %H:%M:%S}",
                f"{item.model}/{item.version}" if item.model else "unknown",
                item.deployment,
                item.rollout,
                item.digest[:16],
            )
            for item in found
        ],
        empty="It has never said that it serves a model.",
    )


@lineage.command()
@options.server
@options.as_json
@click.argument("node")
def graph(server: str | None, json: bool, node: str) -> None:
    """Everything above and below NODE: dataset:ID, run:ID, logged:ID or version:NAME/NUMBER."""
    found = show.client(server).lineage_graph(node)
    if json:
        show.as_json(found)
        return
    show.table(
        ("MADE", "HOW", "FROM", "CONTEXT"),
        [(edge.child, edge.how, edge.parent, edge.context) for edge in found.edges],
        empty="Nothing is known of it.",
    )


@lineage.command()
@options.server
@options.as_json
def rebuild(server: str | None, json: bool) -> None:
    """Read MLflow again for the table of edges; nothing is forgotten."""
    found = show.client(server).rebuild_lineage()
    if json:
        show.as_json(found)
        return
    click.echo(f"{found.versions} versions and {found.bundles} deployed models read: {found.edges} edges.")
    for problem in found.problems:
        click.echo(f"  {problem}", err=True)


@click.command()
@options.server
@options.as_json
@click.option("--all", "everything", is_flag=True, help="Also what is the same.")
@click.argument("left")
@click.argument("right")
def diff(server: str | None, json: bool, everything: bool, left: str, right: str) -> None:
    """What differs between two devices, two versions, or a device now and earlier.

    A side is a target, TARGET@2026-03-03T12:00:00Z, or a model URI such as models:/iris/3.
    """
    found = show.client(server).diff(left, right)
    if json:
        show.as_json(found)
        return
    rows: list[tuple[Any, ...]] = []
    for section in found.sections:
        rows += [(section.name, entry.name, entry.left, entry.right) for entry in section.differences]
        if everything:
            rows += [(section.name, name, value, "same") for name, value in section.same.items()]
        elif section.same:
            names = list(section.same)
            more = f" and {len(names) - _SHOWN_SAME} more" if len(names) > _SHOWN_SAME else ""
            rows.append((section.name, f"same: {', '.join(names[:_SHOWN_SAME])}{more}", "", ""))
    show.table(("PART", "WHAT", left.upper(), right.upper()), rows, empty="Nothing is known of either side.")
