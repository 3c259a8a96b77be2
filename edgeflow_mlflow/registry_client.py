"""The part of the typed client that shows MLflow's models, experiments and runs with their devices."""

from __future__ import annotations

from urllib.parse import quote

from edgeflow_mlflow.api import records
from edgeflow_mlflow.client_calls import Calls
from edgeflow_mlflow.notebook import Rows


class RegistryCalls(Calls):
    """What MLflow knows, and where it runs."""

    def models(self) -> Rows[records.ModelView]:
        """Registered models, and the devices that each is on."""
        return self._all("/models", records.ModelList, lambda page: page.models)

    def model(self, name: str) -> records.ModelDetail:
        """A registered model and its versions."""
        return self._call("GET", f"/models/{quote(name, safe='')}", records.ModelDetail)

    def model_version(self, name: str, version: str) -> records.ModelVersionView:
        """A version, whether it can go to devices, and where it is."""
        path = f"/models/{quote(name, safe='')}/versions/{quote(version, safe='')}"
        return self._call("GET", path, records.ModelVersionView)

    def experiments(self) -> Rows[records.ExperimentView]:
        """Experiments, and the devices that run models of each."""
        return self._all("/experiments", records.ExperimentList, lambda page: page.experiments)

    def experiment(self, experiment_id: str) -> records.ExperimentView:
        """An experiment, and the devices that run models of it."""
        return self._call("GET", f"/experiments/{quote(experiment_id, safe='')}", records.ExperimentView)

    def runs(self, experiment_id: str) -> Rows[records.RunView]:
        """Runs of an experiment, the newest first."""
        query = {"experiment_id": experiment_id}
        return self._all("/runs", records.RunList, lambda page: page.runs, query)

    def run(self, run_id: str) -> records.RunView:
        """A run, its data sets, and the devices that run its models."""
        return self._call("GET", f"/runs/{quote(run_id, safe='')}", records.RunView)
