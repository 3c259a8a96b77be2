"""A pass over MLflow's registry, again and again: check new versions, follow moved aliases.

It compares what is with what should be, so an event that was lost, a plain MLflow client that wrote to
the database, or a second server are all harmless.
"""

from __future__ import annotations

import logging
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import and_, or_, select

from edgeflow_mlflow import errors
from edgeflow_mlflow.api import lineage_reading
from edgeflow_mlflow.api.publishing import publish_model
from edgeflow_mlflow.catalog import Catalog, Model, UnreadableError
from edgeflow_mlflow.db import models
from edgeflow_mlflow.plugin import registry_hook
from edgeflow_mlflow.services import deploy, leftovers, publish, revisions
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)

_BATCH = 20
_BUDGET_S = 10.0
_RETRY = timedelta(minutes=5)
_READ_AGAIN = timedelta(hours=1)
_SEARCH_EVERY = timedelta(minutes=1)
# Older versions are left alone: the first start on a large registry would otherwise copy every model of it.
_SEARCH_BACK = timedelta(days=7)
_PAGE = 200
_GROWS = timedelta(minutes=1)
_MOST_GROWING = 1000


class RegistryPass:
    """Runs in the web worker whose hub was elected: there MLflow is loaded. What is wrong with one version
    or one deployment is logged and never stops the others."""

    def __init__(self, state: State, catalog: Catalog) -> None:
        self._state = state
        self._catalog = catalog
        # (deployment, version) that could not be rolled out -> when to try again; version "": all of it.
        self._refused: dict[tuple[str, str], datetime] = {}
        self._next_search: datetime | None = None
        # Versions whose runs still went on when they were read -> when to read again.
        self._growing: dict[tuple[str, str], datetime] = {}

    def __call__(self) -> None:
        """One pass."""
        self._follow_aliases()
        self._check_new_versions()
        self._note_missed()
        self._complete_lineage()

    def _complete_lineage(self) -> None:
        """Read what is older than Edgeflow, once; and data sets that a run logged after its model."""
        if not lineage_reading.was_built(self._state):
            lineage_reading.rebuild(self._state, self._catalog, is_model=_is_model)
        now = self._state.now()
        for (name, version), again in list(self._growing.items()):
            if again <= now:
                del self._growing[(name, version)]
                try:
                    self._note_lineage(self._catalog.resolve(f"models:/{name}/{version}"))
                except errors.NotFoundError:
                    continue  # deleted meanwhile

    def _note_lineage(self, model: Model) -> None:
        if lineage_reading.note(self._state, self._catalog, model) and len(self._growing) < _MOST_GROWING:
            self._growing[(model.name, model.version)] = self._state.now() + _GROWS

    def _note_missed(self) -> None:
        """Note versions of which no event came: the hook failed, or somebody wrote to MLflow's database."""
        now = self._state.now()
        if self._next_search is not None and now < self._next_search:
            return
        token: str | None = None
        recent = True
        while recent:
            found = self._catalog.registry().search_model_versions(
                max_results=_PAGE, order_by=["creation_timestamp DESC"], page_token=token
            )
            for row in found:
                created = datetime.fromtimestamp(row.creation_timestamp / 1000, UTC)
                recent = created > now - _SEARCH_BACK
                if recent and _is_model(row):
                    self._note(row.name, str(row.version))
            token = found.token
            recent = recent and bool(token)
        self._next_search = now + _SEARCH_EVERY

    def _note(self, name: str, version: str) -> None:
        try:
            with self._state.database.read() as session:
                known = session.get(models.Verdict, (name, version))
            if known is None:
                registry_hook.note(self._state, name, version)
        except Exception:
            logger.exception("version %s of %r cannot be noted", version, name)

    def _check_new_versions(self) -> None:
        again = self._state.now() - _READ_AGAIN
        with self._state.database.read() as session:
            waiting = session.scalars(
                select(models.Verdict)
                .where(
                    or_(
                        models.Verdict.verdict == "pending",
                        and_(models.Verdict.verdict == "unreadable", models.Verdict.updated_at < again),
                    )
                )
                .order_by(models.Verdict.updated_at)
                .limit(_BATCH)
            ).all()
        began = time.monotonic()
        for row in waiting:
            verdict, message = self._judge(row.model_name, row.model_version)
            with self._state.database.write() as session:
                noted = session.get(models.Verdict, (row.model_name, row.model_version))
                # Meanwhile the version may have been deleted, or another been made under its number.
                if noted is not None and noted.updated_at == row.updated_at:
                    noted.verdict, noted.message = verdict, _storable(message)
                    noted.updated_at = self._state.now()
            if time.monotonic() - began > _BUDGET_S:
                return  # aliases are not to wait for many large models

    def _judge(self, name: str, version: str) -> tuple[str, str]:
        data = self._state.config["server.data_dir"]
        try:
            model = self._catalog.resolve(f"models:/{name}/{version}")
            self._note_lineage(model)
            with tempfile.TemporaryDirectory(dir=data, prefix=leftovers.CHECKING) as folder:
                described = self._catalog.fetch(model, Path(folder))
                publish.check(Path(folder), described.entry, steps=described.steps)
        except UnreadableError as error:
            return "unreadable", str(error)
        except errors.UnprocessableError as error:
            return "not_deployable", str(error)
        except errors.ServerError as error:
            return "unreadable", str(error)
        except Exception as error:
            logger.exception("version %s of %r cannot be checked", version, name)
            return "unreadable", f"{type(error).__name__}: {error}"
        return "deployable", ""

    def _follow_aliases(self) -> None:
        with self._state.database.read() as session:
            following = session.execute(
                select(models.Deployment, models.Bundle.model_version)
                .join(models.Rollout, models.Rollout.id == models.Deployment.rollout_id)
                .join(models.Bundle, models.Bundle.id == models.Rollout.bundle_id)
                .where(models.Deployment.live_name.is_not(None), models.Deployment.alias != "")
            ).all()
        now = self._state.now()
        self._refused = {key: again for key, again in self._refused.items() if again > now}
        for deployment, version in following:
            if (deployment.id, "") in self._refused:
                continue
            try:
                self._follow(deployment, version)
            except Exception:
                logger.exception("%s cannot follow its alias; tried again in %s", deployment.name, _RETRY)
                self._refused[(deployment.id, "")] = now + _RETRY

    def _follow(self, deployment: models.Deployment, version: str) -> None:
        uri = f"models:/{deployment.model_name}@{deployment.alias}"
        try:
            wanted = self._catalog.resolve(uri).version
        except errors.ServerError:
            return  # the alias is gone: the deployment keeps what it has
        if wanted == version or (deployment.id, wanted) in self._refused:
            return
        try:
            bundle, alias = publish_model(self._state, self._catalog, uri)
            deploy.update(
                self._state,
                deployment.name,
                deploy.Change(
                    what=revisions.What(bundle_id=bundle.id, model_uri=uri, alias=alias),
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
        logger.info("%s follows %s to version %s", deployment.name, uri, wanted)


def _is_model(row: Any) -> bool:
    return registry_hook.PROMPT_TAG not in (row.tags or {})


def _storable(message: str) -> str:
    """What came out of a hostile file may hold what PostgreSQL takes for no text."""
    return message.replace("\0", "").encode(errors="replace").decode()[:4000]
