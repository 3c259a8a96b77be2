"""A pass over MLflow's registry, again and again: check new versions, follow moved aliases.

It compares what is with what should be, so an event that was lost, a plain MLflow client that wrote to
the database, or a second server are all harmless.
"""

from __future__ import annotations

import logging
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

from mlflow.exceptions import MlflowException
from sqlalchemy import select

from edgeflow_mlflow import errors
from edgeflow_mlflow.api.publishing import publish_model
from edgeflow_mlflow.catalog import Catalog
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import deploy, publish
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)

_BATCH = 20
_RETRY = timedelta(minutes=5)


class RegistryPass:
    """Runs in the web worker whose hub was elected: there MLflow is loaded."""

    def __init__(self, state: State, catalog: Catalog) -> None:
        self._state = state
        self._catalog = catalog
        # (deployment, version) that could not be rolled out -> when to try again.
        self._refused: dict[tuple[str, str], datetime] = {}

    def __call__(self) -> None:
        """One pass."""
        self._check_new_versions()
        self._follow_aliases()

    def _check_new_versions(self) -> None:
        with self._state.database.read() as session:
            pending = session.scalars(
                select(models.Verdict).where(models.Verdict.verdict == "pending").limit(_BATCH)
            ).all()
        for row in pending:
            verdict, message = self._judge(row.model_name, row.model_version)
            with self._state.database.write() as session:
                noted = session.get(models.Verdict, (row.model_name, row.model_version))
                if noted is not None:
                    noted.verdict, noted.message, noted.updated_at = verdict, message, self._state.now()

    def _judge(self, name: str, version: str) -> tuple[str, str]:
        try:
            model = self._catalog.resolve(f"models:/{name}/{version}")
            with tempfile.TemporaryDirectory(dir=self._state.config["server.data_dir"]) as folder:
                described = self._catalog.fetch(model, Path(folder))
                publish.check(Path(folder), described.entry)
        except errors.UnprocessableError as error:
            return "not_deployable", str(error)
        except (errors.ServerError, MlflowException, OSError) as error:
            return "unreadable", str(error)
        return "deployable", ""

    def _follow_aliases(self) -> None:
        with self._state.database.read() as session:
            following = session.execute(
                select(models.Deployment, models.Bundle.model_version)
                .join(models.Rollout, models.Rollout.id == models.Deployment.rollout_id)
                .join(models.Bundle, models.Bundle.id == models.Rollout.bundle_id)
                .where(models.Deployment.live_name.is_not(None), models.Deployment.alias != "")
            ).all()
        for deployment, version in following:
            self._follow(deployment, version)

    def _follow(self, deployment: models.Deployment, version: str) -> None:
        uri = f"models:/{deployment.model_name}@{deployment.alias}"
        try:
            wanted = self._catalog.resolve(uri).version
        except errors.ServerError:
            return  # the alias is gone: the deployment keeps what it has
        again = self._refused.get((deployment.id, wanted))
        if wanted == version or (again is not None and self._state.now() < again):
            return
        try:
            bundle, alias = publish_model(self._state, self._catalog, uri)
            deploy.update(
                self._state,
                deployment.name,
                deploy.Change(
                    what=deploy.What(bundle_id=bundle.id, model_uri=uri, alias=alias),
                    reason=f"alias {deployment.alias!r} moved from version {version} to {wanted}",
                    # What an operator has changed meanwhile is looked at again in the next pass.
                    expected_rollout=deployment.rollout_id,
                ),
                actor="alias",
            )
        except errors.ChangedError:
            return
        except errors.ServerError as error:
            logger.warning("%s cannot follow %s to version %s: %s", deployment.name, uri, wanted, error)
            self._refused[(deployment.id, wanted)] = self._state.now() + _RETRY
            return
        self._refused.pop((deployment.id, wanted), None)
        logger.info("%s follows %s to version %s", deployment.name, uri, wanted)
