"""What happens when MLflow's registry changes: versions are noted for checking, and what runs on a
device cannot be deleted.

The store object that MLflow made is kept and only its class is extended, so that its workspace-aware
form, its constructor and its future methods stay what they are.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2
from sqlalchemy import delete, update

from edgeflow_mlflow import catalog, errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import leftovers, publish, usage
from edgeflow_mlflow.services.lineage import edges
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)

PROMPT_TAG = "mlflow.prompt.is_prompt"
# Reads the files of an artifact URI into a folder and describes them.
Fetch = Callable[[str, Path], catalog.Description]


class RegistryHook:
    """Extends a registry store. `fetch` is only needed for the policy `reject`."""

    def __init__(self, state: State, fetch: Fetch | None = None) -> None:
        self._state = state
        self._fetch = fetch

    def wrap(self, store: Any) -> Any:
        """The same store, of a class that asks this hook."""
        kind = type(store)
        if not issubclass(kind, _Hooked):
            store.__class__ = type(f"Edgeflow{kind.__name__}", (_Hooked, kind), {})
        store._edgeflow_hook = self
        return store

    def before_create(self, source: str, tags: Any) -> None:
        """With the policy `reject`, refuse a version that no device could run."""
        if self._state.config["registry.onnx_policy"] != "reject" or self._fetch is None or is_prompt(tags):
            return
        data = self._state.config["server.data_dir"]
        with tempfile.TemporaryDirectory(dir=data, prefix=leftovers.CHECKING) as name:
            try:
                described = self._fetch(source, Path(name))
                publish.check(Path(name), described.entry, steps=described.steps)
            except errors.ServerError as error:
                raise MlflowException(
                    f"{error} (this server registers deployable ONNX models only: "
                    "[registry] onnx_policy = 'reject')",
                    error_code=databricks_pb2.INVALID_PARAMETER_VALUE,
                ) from error

    def created(self, name: str, version: str, tags: Any) -> None:
        """Note the version for checking; the check itself is not in the way of the training script."""
        if is_prompt(tags):
            return
        with _after_the_fact(f"version {version} of {name!r} could not be noted; it is found again later"):
            note(self._state, name, version)

    def before_delete(self, name: str, version: str | None) -> None:
        """Refuse, with 409, to delete what a device serves or is to serve."""
        with self._state.database.read() as session:
            used = [
                item
                for item in usage.of_bundles(session, usage.bundles_of(session, name, version))
                if item.desired or item.actual
            ]
        if used:
            names = sorted({item.target.id for item in used})
            where = ", ".join(names[:5])
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            what = f"version {version} of {name!r}" if version else f"model {name!r}"
            raise MlflowException(
                f"{what} runs on {where}{more}: deploy another version there or delete the deployment first",
                error_code=databricks_pb2.RESOURCE_CONFLICT,
            )

    def deleted(self, name: str, version: str | None) -> None:
        """Forget the verdicts: the name and its numbers may be used again."""
        with (
            _after_the_fact(f"the verdict on {name!r} {version or ''} could not be forgotten"),
            self._state.database.write() as session,
        ):
            gone = delete(models.Verdict).where(models.Verdict.model_name == name)
            session.execute(gone if version is None else gone.where(models.Verdict.model_version == version))

    def renamed(self, old: str, new: str) -> None:
        """Keep finding the bundles of a renamed model."""
        with (
            _after_the_fact(
                f"{old!r} is {new!r} now, which its deployments do not know: rename it back and again"
            ),
            self._state.database.write() as session,
        ):
            # Of a model that had the name before.
            session.execute(delete(models.Verdict).where(models.Verdict.model_name == new))
            for table in (models.Bundle, models.Deployment, models.Verdict):
                session.execute(update(table).where(table.model_name == old).values(model_name=new))
            edges.rename(session, old, new)


def note(state: State, name: str, version: str) -> None:
    """Have a version checked, whatever was said of an earlier one of that name and number."""
    now = state.now()
    with state.database.write() as session:
        session.merge(
            models.Verdict(
                model_name=name,
                model_version=version,
                verdict="pending",
                message="",
                created_at=now,
                updated_at=now,
            )
        )


@contextlib.contextmanager
def _after_the_fact(lost: str) -> Iterator[None]:
    """MLflow has committed: whoever asked has what they asked for, whatever becomes of our own notes."""
    try:
        yield
    except Exception:
        logger.exception("%s", lost)


def is_prompt(tags: Any) -> bool:
    """MLflow keeps prompts as registered models; they are not for devices."""
    return any(tag.key == PROMPT_TAG for tag in tags or ())


class _Hooked:
    """Comes before MLflow's store class in the order of resolution."""

    _edgeflow_hook: RegistryHook

    def create_model_version(self, name: str, source: str, *args: Any, **kwargs: Any) -> Any:
        tags = kwargs.get("tags", args[1] if len(args) > 1 else None)
        self._edgeflow_hook.before_create(source, tags)
        created = super().create_model_version(name, source, *args, **kwargs)  # type: ignore[misc]
        self._edgeflow_hook.created(name, str(created.version), tags)
        return created

    def delete_model_version(self, name: str, version: Any) -> Any:
        self._edgeflow_hook.before_delete(name, str(version))
        result = super().delete_model_version(name, version)  # type: ignore[misc]
        self._edgeflow_hook.deleted(name, str(version))
        return result

    def delete_registered_model(self, name: str) -> Any:
        self._edgeflow_hook.before_delete(name, None)
        result = super().delete_registered_model(name)  # type: ignore[misc]
        self._edgeflow_hook.deleted(name, None)
        return result

    def rename_registered_model(self, name: str, new_name: str) -> Any:
        renamed = super().rename_registered_model(name, new_name)  # type: ignore[misc]
        self._edgeflow_hook.renamed(name, new_name)
        return renamed
