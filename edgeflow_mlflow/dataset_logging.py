"""Log a data set with an identity that covers all of it, so that a recall finds every model trained on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from edgeflow_mlflow import dataset_identity, errors
from edgeflow_mlflow.ancestry import CONTENT_TAG, STARTED_FROM_TAG, USED_TAG

# What MLflow takes in the name of a tag.
_CONTEXT = re.compile(r"[A-Za-z0-9 _.-]{1,64}")


def log_dataset(
    data: Any,
    *,
    name: str,
    context: str = "training",
    source: str | None = None,
    targets: str | None = None,
    tags: dict[str, str] | None = None,
) -> str:
    """Log what the active run works with, as `mlflow.log_input` does, and its SHA-256 over all content.

    `data` is a path to a file or folder, a pandas or Arrow table, a NumPy array, or a dict of arrays.
    `source` says where it comes from (a path or URL; for a path it is the path). Models whose run used a data
    set with a context such as `eval` or `test` do not count as trained on it. Return the SHA-256 as 64 hex
    characters. Raise InvalidError for data without an identity."""
    import mlflow

    content = dataset_identity.content_sha256(data)
    dataset = _dataset(data, name=name, source=source, targets=targets, content=content)
    if not _CONTEXT.fullmatch(context):
        raise errors.InvalidError(
            f"{context!r} cannot be a context: use letters, digits, '-', '_', '.' and blanks"
        )
    mlflow.log_input(dataset, context=context, tags={**(tags or {}), CONTENT_TAG: content})
    # Also with the run: MLflow drops the tags and the context of an input that it has already.
    mlflow.set_tags(
        {f"{CONTENT_TAG}.{dataset.digest}": content, f"{USED_TAG}.{dataset.digest}.{context}": "true"}
    )
    return content


def identify_dataset(run_id: str, digest: str, data: Any) -> str:
    """Add the identity to a data set that a run logged by plain MLflow, found there by its MLflow digest;
    return it. Raise NotFoundError when the run logged no such data set."""
    import mlflow

    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    found = {item.dataset.digest: item.dataset.name for item in run.inputs.dataset_inputs}
    if digest not in found:
        known = ", ".join(f"{name} ({item})" for item, name in sorted(found.items())) or "none"
        raise errors.NotFoundError(
            f"run {run_id} logged no data set with the digest {digest!r}; it logged {known}"
        )
    content = dataset_identity.content_sha256(data)
    client.set_tag(run_id, f"{CONTENT_TAG}.{digest}", content)
    return content


def log_parent_model(uri: str) -> None:
    """Say what the active run began its training with: a recall of that model's data then reaches the models
    of this run too. `uri` is `models:/NAME/VERSION` or `models:/m-ID`."""
    import mlflow

    mlflow.set_tag(STARTED_FROM_TAG, uri)


def _dataset(data: Any, *, name: str, source: str | None, targets: str | None, content: str) -> Any:
    import mlflow.data
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    digest = content[:16]  # MLflow's own would be the same for another row 10,001

    if isinstance(data, str | Path):
        return MetaDataset(
            source=mlflow.data.dataset_source_registry.resolve_dataset_source(source or str(data)),
            name=name,
            digest=digest,
        )
    if isinstance(data, np.ndarray | dict):
        return mlflow.data.from_numpy(data, source=source, name=name, digest=digest)
    if type(data).__module__.partition(".")[0] == "pandas":
        frame = data.to_frame() if not hasattr(data, "columns") else data
        return mlflow.data.from_pandas(frame, source=source, targets=targets, name=name, digest=digest)
    origin = (
        mlflow.data.dataset_source_registry.resolve_dataset_source(source)
        if source
        else CodeDatasetSource(tags={})
    )
    return MetaDataset(source=origin, name=name, digest=digest)
