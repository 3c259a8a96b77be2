"""Turn a model folder into a bundle: scanned, hashed, copied to the blob store, written down."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from edgeflow_agent import errors as agent_errors
from edgeflow_agent import steps as model_steps
from edgeflow_agent.wire import documents
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import lineage as domain_lineage
from edgeflow_mlflow.domain import requirements
from edgeflow_mlflow.services import onnx_scan
from edgeflow_mlflow.services.lineage import edges
from edgeflow_mlflow.services.state import State

BASELINE = "baseline.json"
STEPS = model_steps.FILE
_OURS = (BASELINE, STEPS)
_KEEP_FREE = 256 * 2**20
_MOST_REQUIREMENTS = 256 * 2**10


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model comes from, as the catalog resolved it."""

    name: str
    version: str
    model_id: str
    run_id: str
    source: str


def known(state: State, origin: Origin) -> models.Bundle | None:
    """The bundle of this very source, when all its files are still here."""
    with state.database.read() as session:
        rows = session.scalars(
            select(models.Bundle)
            .where(
                models.Bundle.model_name == origin.name,
                models.Bundle.model_version == origin.version,
                models.Bundle.source == origin.source,
            )
            .order_by(models.Bundle.created_at.desc())
        ).all()
    for row in rows:
        if all(state.blobs.find(item["sha256"]) for item in row.files):
            return row
    return None


def publish(
    state: State,
    origin: Origin,
    folder: Path,
    *,
    entry: str,
    columns: Sequence[dict[str, str]],
    labels: Sequence[str],
    baseline: str,
    steps: str = "",
    lineage: dict[str, Any],
) -> models.Bundle:
    """Copy what the graph in `folder/entry` refers to, the baseline and the steps, and keep the facts."""
    scan = check(folder, entry, steps=steps)
    sources = _sources(folder, scan, baseline=baseline, steps=steps)
    total = sum(path.stat().st_size for path in sources.values())
    if total > state.config["limits.model_mb"] * 2**20:
        raise errors.UnprocessableError(
            f"the model is {total / 2**20:.0f} MiB, over the limit of {state.config['limits.model_mb']} "
            "([limits] model_mb)"
        )
    if state.blobs.free_bytes() - total < _KEEP_FREE:
        raise errors.ConflictError("the server's disk has no room for the model; free some and try again")
    files = []
    for name, path in sorted(sources.items()):
        sha256, size = state.blobs.add(path)
        files.append(documents.FileRef(path=name, sha256=sha256, size=size))
    interface = documents.from_builtins(
        documents.Interface,
        {
            "inputs": scan.inputs,
            "outputs": scan.outputs,
            "columns": list(columns),
            "labels": list(labels),
        },
    )
    row = models.Bundle(
        id=uuid.uuid4().hex,
        digest=documents.bundle_digest(files),
        model_name=origin.name,
        model_version=origin.version,
        model_id=origin.model_id,
        run_id=origin.run_id,
        source=origin.source,
        files=[documents.to_builtins(item) for item in files],
        entry=entry,
        interface=documents.to_builtins(interface),
        baseline_sha256=next((item.sha256 for item in files if item.path == BASELINE), ""),
        lineage={**lineage, **facts(folder, scan)},
        created_at=state.now(),
    )
    with state.database.write() as session:
        session.add(row)
        edges.note(session, row.lineage, row.created_at)
    return row


def files_of(folder: Path, scan: onnx_scan.Scan, *, baseline: str, steps: str) -> list[documents.FileRef]:
    """The files that a bundle of this folder would have."""
    found = []
    for name, path in sorted(_sources(folder, scan, baseline=baseline, steps=steps).items()):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        found.append(documents.FileRef(path=name, sha256=sha256, size=path.stat().st_size))
    return found


def _sources(folder: Path, scan: onnx_scan.Scan, *, baseline: str, steps: str) -> dict[str, Path]:
    ours = {BASELINE: baseline, STEPS: steps}
    return {name: folder / name for name in scan.files} | {
        name: folder / path for name, path in ours.items() if path
    }


def facts(folder: Path, scan: onnx_scan.Scan) -> dict[str, Any]:
    """What the files say of themselves: the graph, and the packages that the model was made with."""
    return {
        "graph": {
            "opsets": scan.opsets,
            "nodes": scan.nodes,
            "ir": scan.ir_version,
            "operators": scan.operators,
            "parameters": scan.parameters,
        },
        "environment": requirements.parse(_optional(folder / "requirements.txt")),
    }


def refresh(state: State, bundle: models.Bundle, lineage: dict[str, Any]) -> models.Bundle:
    """Add what MLflow knows by now: a run may log its data sets after its model was deployed."""
    merged = domain_lineage.refreshed(bundle.lineage, lineage)
    if merged == bundle.lineage:
        return bundle
    with state.database.write() as session:
        row = session.get_one(models.Bundle, bundle.id)
        row.lineage = merged
        edges.note(session, merged, state.now())
    return row


def _optional(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_REQUIREMENTS)
    except OSError:
        return ""


def check(folder: Path, entry: str, *, steps: str = "") -> onnx_scan.Scan:
    """Scan a model; raise UnprocessableError with every reason why it cannot go to a device. `steps` is the
    file of its steps, which must fit the graph."""
    if not documents.FILE_NAME.fullmatch(entry) or entry in _OURS:
        raise errors.UnprocessableError(f"the model's file name {entry!r} cannot be used on a device")
    scan = onnx_scan.scan(folder, entry)
    if len(scan.files) + len(_OURS) > documents.MAX_FILES:
        raise errors.UnprocessableError(
            f"the model has {len(scan.files)} files, devices take at most "
            f"{documents.MAX_FILES - len(_OURS)}: save its external data in one file"
        )
    if taken := sorted(set(scan.files) & set(_OURS)):
        raise errors.UnprocessableError(
            f"the model's weights are in {taken[0]!r}: give that file another name"
        )
    if scan.problems:
        raise errors.UnprocessableError("the model cannot go to a device: " + "; ".join(scan.problems))
    if steps:
        _check_steps(folder / steps, scan)
    return scan


def _check_steps(path: Path, scan: onnx_scan.Scan) -> None:
    inputs, outputs = (
        [documents.from_builtins(documents.TensorSpec, item) for item in items]
        for items in (scan.inputs, scan.outputs)
    )
    try:
        model_steps.load(path).check(inputs, outputs)
    except agent_errors.ModelError as error:
        raise errors.UnprocessableError(f"the model cannot go to a device: {error}") from error
