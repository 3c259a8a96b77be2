"""From a model URI to a bundle whose files this server has: MLflow is read, the blob store is filled."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edgeflow_mlflow import errors
from edgeflow_mlflow.api.routing import Call
from edgeflow_mlflow.catalog import Catalog, Model
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import publish
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)

_RETRY_S = 30
_restoring = threading.Lock()
_failed: dict[str, float] = {}  # bundle id -> when (monotonic) MLflow may be asked for it again


def publish_model(
    state: State, catalog: Catalog, uri: str, *, check: Callable[[Model], None] = lambda model: None
) -> tuple[models.Bundle, str]:
    """The bundle that a model URI names now, published if it was not yet; and the alias it names.

    `check` raises when the caller may not have the model: before anything of it is copied.
    """
    model = catalog.resolve(uri)
    check(model)
    origin = publish.Origin(
        name=model.name,
        version=model.version,
        model_id=model.model_id,
        run_id=model.run_id,
        source=model.artifact_uri,
    )
    bundle = publish.known(state, origin)
    if bundle is not None:
        return publish.refresh(state, bundle, catalog.lineage(model)), model.alias
    with _folder(state) as folder:
        described = catalog.fetch(model, folder)
        bundle = publish.publish(
            state,
            origin,
            folder,
            entry=described.entry,
            columns=described.columns,
            labels=described.labels,
            baseline=described.baseline,
            steps=described.steps,
            lineage=catalog.lineage(model),
        )
    return bundle, model.alias


def publish_for(call: Call, uri: str) -> tuple[models.Bundle, str]:
    """The same for somebody who asks; raise ForbiddenError when they may not have the model."""
    return publish_model(call.state, call.catalog, uri, check=lambda model: check_seen(call, model, uri))


def check_seen(call: Call, model: Model, uri: str) -> None:
    """Raise ForbiddenError when the caller may not read a model."""
    if model.is_registered:
        if not call.sees_model(model.name):
            raise errors.ForbiddenError(f"you may not read model {model.name!r}")
    elif not call.sees_experiment(call.catalog.experiment_of(model)):
        raise errors.ForbiddenError(f"you may not read the experiment of {uri!r}")


def restore(state: State, catalog: Catalog, bundle: models.Bundle) -> None:
    """Fetch a bundle's files again: this server came to the database without them, or lost them.

    One at a time: a whole fleet may ask at once, and each asker holds a thread. Raise TooManyError when
    it is worth asking again. A file that MLflow no longer has as it was gets another digest, and so never
    stands in for the old.
    """
    if time.monotonic() < _failed.get(bundle.id, 0.0) or not _restoring.acquire(blocking=False):
        raise errors.TooManyError("the files are being fetched from MLflow; ask again", retry_after_s=2)
    try:
        _restore(state, catalog, bundle)
    finally:
        _restoring.release()


def _restore(state: State, catalog: Catalog, bundle: models.Bundle) -> None:
    logger.info("fetching the files of %s %s again", bundle.model_name, bundle.model_version)
    with _folder(state) as folder:
        try:
            described = catalog.fetch(
                Model(name=bundle.model_name, version=bundle.model_version, artifact_uri=bundle.source),
                folder,
            )
        except errors.ServerError as error:
            logger.warning(
                "%s %s cannot be fetched again: %s", bundle.model_name, bundle.model_version, error
            )
            _failed[bundle.id] = time.monotonic() + _RETRY_S
            raise errors.TooManyError(
                f"MLflow does not give out the files: {error}", retry_after_s=_RETRY_S
            ) from error
        ours = {publish.BASELINE: described.baseline, publish.STEPS: described.steps}
        for item in bundle.files:
            name = ours.get(item["path"], item["path"])
            if name and (folder / name).is_file():
                state.blobs.add(folder / name)


@contextlib.contextmanager
def _folder(state: State) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=state.config["server.data_dir"], prefix="publishing-") as name:
        yield Path(name)
