"""`edgeflow models` and `edgeflow runs`: what MLflow knows, with the devices that have it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgeflow_mlflow.api import records
from edgeflow_mlflow.cli import options, show

_SHOWN = 4


def _where(found: Sequence[records.RunsOn]) -> str:
    """The devices that serve it; the others are counted."""
    serving = [item.target for item in found if item.actual]
    text = ", ".join(serving[:_SHOWN]) + (
        f" and {len(serving) - _SHOWN} more" if len(serving) > _SHOWN else ""
    )
    fallback = sum(item.fallback and not item.actual for item in found)
    return text + (f" ({fallback} could fall back to it)" if fallback else "")


@click.group()
def models() -> None:
    """Registered models."""


@models.command("list")
@options.server
@options.as_json
def listing(server: str | None, json: bool) -> None:
    """Every registered model and where it runs."""
    found = show.client(server).models()
    if json:
        show.as_json(found)
        return
    show.table(
        ("MODEL", "ALIASES", "RUNS ON"),
        [
            (
                item.name,
                ", ".join(f"{name}={version}" for name, version in item.aliases.items()),
                _where(item.runs_on),
            )
            for item in found
        ],
        empty="No models. Register one: edgeflow_mlflow.log_model(…, registered_model_name='iris')",
    )


@models.command("show")
@options.server
@options.as_json
@click.argument("name")
@click.argument("version", required=False)
def one(server: str | None, json: bool, name: str, version: str | None) -> None:
    """A model and its versions, or one version: can it go to devices, and where is it?"""
    client = show.client(server)
    if version is None:
        detail = client.model(name)
        if json:
            show.as_json(detail)
            return
        versions = detail.versions
    else:
        found = client.model_version(name, version)
        if json:
            show.as_json(found)
            return
        versions = [found]
    show.table(
        ("VERSION", "ALIASES", "FOR DEVICES", "RUN", "RUNS ON", "WHY"),
        [
            (
                item.version,
                ", ".join(item.aliases),
                item.verdict.replace("_", " "),
                item.run_id,
                _where(item.runs_on),
                item.verdict_message,
            )
            for item in versions
        ],
        empty="It has no versions.",
    )


@models.command()
@options.server
@options.as_json
@click.option("--limit", "limits", multiple=True, help="name=value; an empty value: not judged.")
@click.option("--min-samples", type=int, help="Values that a verdict needs.")
@click.option("--reset", is_flag=True, help="As usual again.")
@click.argument("name")
@click.argument("version")
def thresholds(
    server: str | None,
    json: bool,
    limits: tuple[str, ...],
    min_samples: int | None,
    reset: bool,
    name: str,
    version: str,
) -> None:
    """From when on a version counts as drifted; with --limit, set that anew."""
    client = show.client(server)
    if limits or min_samples is not None or reset:
        try:
            given = {key: float(value) if value else None for key, value in options.pairs(limits).items()}
        except ValueError as error:
            raise click.BadParameter(f"a limit is a number: {error}", param_hint="--limit") from error
        body = records.ThresholdsChange(limits=given)
        if min_samples is not None:
            body = records.ThresholdsChange(limits=given, min_samples=min_samples)
        found = client.put_thresholds(name, version, body)
    else:
        found = client.thresholds(name, version)
    if json:
        show.as_json(found)
        return
    rows = [*sorted(found.limits.items()), ("min samples", found.min_samples)]
    show.table(("WHAT", "LIMIT"), rows, empty="Nothing is judged.")


@click.group()
def runs() -> None:
    """Training runs."""


@runs.command("list")
@options.server
@options.as_json
@click.argument("experiment", required=False)
def runs_of(server: str | None, json: bool, experiment: str | None) -> None:
    """Runs of an experiment (its id), or all experiments when none is named."""
    client = show.client(server)
    if experiment is None:
        found = client.experiments()
        if json:
            show.as_json(found)
            return
        show.table(
            ("EXPERIMENT", "NAME", "RUNS ON"),
            [(item.id, item.name, _where(item.runs_on)) for item in found],
            empty="No experiments.",
        )
        return
    of = client.experiment(experiment)
    listed = client.runs(of.id)
    if json:
        show.as_json(listed)
        return
    show.table(
        ("RUN", "NAME", "STATUS", "BY", "DATA SETS", "RUNS ON"),
        [
            (
                item.id,
                item.name,
                item.status,
                item.user,
                ", ".join(found["name"] for found in item.datasets),
                _where(item.runs_on),
            )
            for item in listed
        ],
        empty=f"Experiment {of.name} has no runs.",
    )


@runs.command("show")
@options.server
@options.as_json
@click.argument("run_id")
def run(server: str | None, json: bool, run_id: str) -> None:
    """A run, its data sets, and the devices that run its models."""
    found = show.client(server).run(run_id)
    if json:
        show.as_json(found)
        return
    rows = [("run", f"{found.name} {found.id}"), ("by", found.user), ("status", found.status)]
    rows += [(f"param {name}", value) for name, value in sorted(found.params.items())]
    rows += [(f"metric {name}", str(value)) for name, value in sorted(found.metrics.items())]
    rows += [("data set", f"{item['name']} {item['digest']} ({item['context']})") for item in found.datasets]
    rows.append(("runs on", _where(found.runs_on)))
    show.table(("", ""), rows, empty="")
