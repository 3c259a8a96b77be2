"""The facts of a model by its URI: those that were kept when it was published, or read from MLflow now."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgeflow_agent.wire import documents
from edgeflow_mlflow.api import lineage_views
from edgeflow_mlflow.api.publishing import check_seen
from edgeflow_mlflow.api.routing import Call
from edgeflow_mlflow.services import leftovers, publish
from edgeflow_mlflow.services.lineage import portraits
from edgeflow_mlflow.services.lineage.portraits import ModelFacts


def read(call: Call, uri: str) -> ModelFacts:
    """The facts of a model version, deployed or not; raise UnprocessableError when it is no ONNX model."""
    model = call.catalog.resolve(uri)
    check_seen(call, model, uri)
    origin = publish.Origin(
        name=model.name,
        version=model.version,
        model_id=model.model_id,
        run_id=model.run_id,
        source=model.artifact_uri,
    )
    bundle = publish.known(call.state, origin)
    if bundle is not None:
        bundle.lineage = lineage_views.frozen(call, bundle.lineage)
        return portraits.facts_of(bundle)
    data = call.state.config["server.data_dir"]
    with tempfile.TemporaryDirectory(dir=data, prefix=leftovers.CHECKING) as name:
        folder = Path(name)
        described = call.catalog.fetch(model, folder)
        scan = publish.check(folder, described.entry, steps=described.steps)
        files = publish.files_of(folder, scan, baseline=described.baseline, steps=described.steps)
        facts = publish.facts(folder, scan)
    return ModelFacts(
        name=model.name,
        version=model.version,
        digest=documents.bundle_digest(files),
        size=sum(item.size for item in files),
        interface={
            "inputs": scan.inputs,
            "outputs": scan.outputs,
            "columns": list(described.columns),
            "labels": list(described.labels),
        },
        lineage=lineage_views.frozen(call, {**call.catalog.lineage(model), **facts}),
    )
