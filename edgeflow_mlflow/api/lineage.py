"""Read views of MLflow's models, experiments and runs, each with the devices that run them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow.exceptions import MlflowException

from edgeflow_mlflow import ancestry, errors
from edgeflow_mlflow.api import records, views
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import usage


def _missing(what: str, error: MlflowException) -> errors.ServerError:
    if error.error_code == "RESOURCE_DOES_NOT_EXIST":
        return errors.NotFoundError(f"no {what}")
    return errors.InvalidError(error.message)


def _models(call: Call, rows: Sequence[Any]) -> list[records.ModelView]:
    with call.state.database.read() as session:
        used = usage.of_bundles(session, usage.bundles_of_models(session, [row.name for row in rows]))
    return [_model(call, row, [item for item in used if item.bundle.model_name == row.name]) for row in rows]


def _model(call: Call, row: Any, used: Sequence[usage.Usage]) -> records.ModelView:
    return records.ModelView(
        name=row.name,
        description=row.description or "",
        aliases={key: str(value) for key, value in (row.aliases or {}).items()},
        runs_on=views.runs_on(call.state, used),
    )


def list_models(call: Call) -> records.ModelList:
    """Registered models that the caller may see."""
    query: records.PageQuery = call.query
    try:
        found = call.catalog.registry().search_registered_models(
            max_results=query.limit, page_token=query.page_token or None
        )
    except (MlflowException, ValueError) as error:  # ValueError: a page token that is none
        raise errors.InvalidError(str(error)) from error
    return records.ModelList(
        models=_models(call, [row for row in found if call.sees_model(row.name)]),
        next_page_token=found.token or "",
    )


def show_model(call: Call) -> records.ModelDetail:
    """A registered model and its versions."""
    name = call.path["name"]
    if not call.sees_model(name):
        raise errors.ForbiddenError(f"you may not read model {name!r}")
    registry = call.catalog.registry()
    try:
        row = registry.get_registered_model(name)
        quote = '"' if "'" in name else "'"  # MLflow knows no escape
        versions = registry.search_model_versions(f"name={quote}{name}{quote}", max_results=500)
    except MlflowException as error:
        raise _missing(f"registered model {name!r}", error) from error
    by_version: dict[str, list[str]] = {}
    for alias, version in (row.aliases or {}).items():
        by_version.setdefault(str(version), []).append(alias)
    newest = sorted(versions, key=lambda item: int(item.version), reverse=True)
    return records.ModelDetail(
        model=_models(call, [row])[0],
        versions=[_version(call, item, by_version.get(str(item.version), [])) for item in newest],
    )


def _version(call: Call, row: Any, aliases: list[str]) -> records.ModelVersionView:
    version = str(row.version)
    with call.state.database.read() as session:
        verdict = session.get(models.Verdict, (row.name, version))
        used = usage.of_version(session, row.name, version)
        bundles = usage.bundles_of(session, row.name, version)
    return records.ModelVersionView(
        name=row.name,
        version=version,
        run_id=row.run_id or next((bundle.run_id for bundle in bundles), ""),
        aliases=sorted(aliases),
        verdict="unknown" if verdict is None else verdict.verdict,
        verdict_message="" if verdict is None else verdict.message,
        runs_on=views.runs_on(call.state, used),
    )


def show_version(call: Call) -> records.ModelVersionView:
    """A model version and the devices that it is on."""
    name, version = call.path["name"], call.path["version"]
    if not call.sees_model(name):
        raise errors.ForbiddenError(f"you may not read model {name!r}")
    registry = call.catalog.registry()
    if not version.isascii() or not version.isdigit():
        raise errors.NotFoundError(f"no version {version!r} of {name!r}: versions are numbers")
    try:
        row = registry.get_model_version(name, version)
        aliases = registry.get_registered_model(name).aliases or {}
    except MlflowException as error:
        raise _missing(f"version {version!r} of model {name!r}", error) from error
    return _version(call, row, [alias for alias, found in aliases.items() if str(found) == version])


def list_experiments(call: Call) -> records.ExperimentList:
    """Experiments that the caller may see."""
    query: records.PageQuery = call.query
    try:
        found = call.catalog.tracking().search_experiments(
            max_results=query.limit, page_token=query.page_token or None
        )
    except (MlflowException, ValueError) as error:  # ValueError: a page token that is none
        raise errors.InvalidError(str(error)) from error
    return records.ExperimentList(
        experiments=_experiments(
            call, [row for row in found if call.sees_experiment(str(row.experiment_id))]
        ),
        next_page_token=found.token or "",
    )


def _experiments(call: Call, rows: Sequence[Any]) -> list[records.ExperimentView]:
    ids = [str(row.experiment_id) for row in rows]
    with call.state.database.read() as session:
        used = usage.of_bundles(session, usage.bundles_of_experiments(session, ids))
    return [
        records.ExperimentView(
            id=identifier,
            name=row.name,
            lifecycle_stage=row.lifecycle_stage,
            runs_on=views.runs_on(
                call.state,
                [item for item in used if item.bundle.lineage["run"]["experiment_id"] == identifier],
            ),
        )
        for identifier, row in zip(ids, rows, strict=True)
    ]


def show_experiment(call: Call) -> records.ExperimentView:
    """An experiment and the devices that run models of it."""
    experiment_id = call.path["experiment_id"]
    if not call.sees_experiment(experiment_id):
        raise errors.ForbiddenError(f"you may not read experiment {experiment_id!r}")
    try:
        row = call.catalog.tracking().get_experiment(experiment_id)
    except (MlflowException, ValueError) as error:
        raise errors.NotFoundError(f"no experiment {experiment_id!r}") from error
    return _experiments(call, [row])[0]


def _runs(call: Call, runs: Sequence[Any]) -> list[records.RunView]:
    ids = [run.info.run_id for run in runs]
    with call.state.database.read() as session:
        used = usage.of_bundles(session, usage.bundles_of_runs(session, ids))
    return [_run(call, run, [item for item in used if item.bundle.run_id == run.info.run_id]) for run in runs]


def _run(call: Call, run: Any, used: Sequence[usage.Usage]) -> records.RunView:
    facts = ancestry.run_facts(run)
    return records.RunView(
        id=facts["id"],
        name=facts["name"] or "",
        experiment_id=facts["experiment_id"],
        status=facts["status"],
        user=facts["user"] or "",
        started_ms=facts["started_ms"],
        params=facts["params"],
        metrics=facts["metrics"],
        datasets=ancestry.dataset_facts(run),
        runs_on=views.runs_on(call.state, used),
    )


def list_runs(call: Call) -> records.RunList:
    """Runs of an experiment, newest first."""
    query: records.RunQuery = call.query
    if not query.experiment_id:
        raise errors.InvalidError("give experiment_id; /api/v1/experiments lists them")
    if not call.sees_experiment(query.experiment_id):
        raise errors.ForbiddenError(f"you may not read experiment {query.experiment_id!r}")
    try:
        found = call.catalog.tracking().search_runs(
            [query.experiment_id],
            "",
            1,  # active runs only, as MLflow's ViewType.ACTIVE_ONLY
            max_results=query.limit,
            order_by=["attributes.start_time DESC"],
            page_token=query.page_token or None,
        )
    except (MlflowException, ValueError) as error:
        raise errors.InvalidError(str(error)) from error
    return records.RunList(runs=_runs(call, found), next_page_token=found.token or "")


def show_run(call: Call) -> records.RunView:
    """A run, its data sets, and the devices that run a model which it produced."""
    run_id = call.path["run_id"]
    try:
        run = call.catalog.tracking().get_run(run_id)
    except MlflowException as error:
        raise errors.NotFoundError(f"no run {run_id!r}") from error
    if not call.sees_experiment(str(run.info.experiment_id)):
        raise errors.ForbiddenError(f"you may not read run {run_id!r}")
    return _runs(call, [run])[0]


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="GET",
        rule="/models",
        policy=Policy.READ,
        handler=list_models,
        summary="Registered models and where they run",
        query=records.PageQuery,
        answer=records.ModelList,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/models/<name>",
        policy=Policy.READ,
        handler=show_model,
        summary="A registered model, its versions, and where they run",
        answer=records.ModelDetail,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/models/<name>/versions/<version>",
        policy=Policy.READ,
        handler=show_version,
        summary="A model version, whether it can be deployed, and where it runs",
        answer=records.ModelVersionView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/experiments",
        policy=Policy.READ,
        handler=list_experiments,
        summary="Experiments and where their models run",
        query=records.PageQuery,
        answer=records.ExperimentList,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/experiments/<experiment_id>",
        policy=Policy.READ,
        handler=show_experiment,
        summary="An experiment and where its models run",
        answer=records.ExperimentView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/runs",
        policy=Policy.READ,
        handler=list_runs,
        summary="Runs of an experiment and where their models run",
        query=records.RunQuery,
        answer=records.RunList,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/runs/<run_id>",
        policy=Policy.READ,
        handler=show_run,
        summary="A run, its data sets, and where its models run",
        answer=records.RunView,
        errors=(*_REFUSED, 404),
    ),
)
