"""MLflow's models, experiments and runs, with the devices that run them."""

from __future__ import annotations

from edgeflow_mlflow.api.records.common import Output, PageQuery, Short


class RunsOn(Output, frozen=True):
    """A device and its bond to a model version: what it is to serve, does serve, or could fall back to."""

    target: str
    model: str
    version: str
    desired: bool
    actual: bool
    fallback: bool
    status: str


class ModelVersionView(Output, frozen=True):
    """A model version with the verdict whether it can be deployed, and the devices that it is on."""

    name: str
    version: str
    run_id: str
    aliases: list[str]
    verdict: str
    verdict_message: str
    runs_on: list[RunsOn]


class ModelView(Output, frozen=True):
    """A registered model."""

    name: str
    description: str
    aliases: dict[str, str]
    runs_on: list[RunsOn]


class ModelList(Output, frozen=True):
    """A page of registered models."""

    models: list[ModelView]
    next_page_token: str = ""


class ModelDetail(Output, frozen=True):
    """A registered model and its versions, newest first."""

    model: ModelView
    versions: list[ModelVersionView]


class ExperimentView(Output, frozen=True):
    """An experiment, and the devices that run a model of one of its runs."""

    id: str
    name: str
    lifecycle_stage: str
    runs_on: list[RunsOn] = []


class ExperimentList(Output, frozen=True):
    """A page of experiments."""

    experiments: list[ExperimentView]
    next_page_token: str = ""


class RunView(Output, frozen=True):
    """A run, its data sets, and the devices that run a model which it produced."""

    id: str
    name: str
    experiment_id: str
    status: str
    user: str
    started_ms: int | None
    params: dict[str, str]
    metrics: dict[str, float | None]
    datasets: list[dict[str, str]]
    runs_on: list[RunsOn]


class RunList(Output, frozen=True):
    """A page of runs, newest first."""

    runs: list[RunView]
    next_page_token: str = ""


class RunQuery(PageQuery, frozen=True):
    """Of which experiment."""

    # The records before this one have defaults, so this one needs one too; the handler insists.
    experiment_id: Short = ""
