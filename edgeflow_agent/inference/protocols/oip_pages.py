"""What the Open Inference Protocol and Triton's extensions of it tell about a server and its model."""

from __future__ import annotations

from typing import Any

from edgeflow_agent import version
from edgeflow_agent.inference.protocols import oip_tensors
from edgeflow_agent.inference.slot import Serving
from edgeflow_agent.wire.documents import TensorSpec

_PLATFORM = "onnxruntime_onnx"
_EXTENSIONS = ("binary_tensor_data", "parameters", "model_configuration", "statistics", "model_repository")


def server() -> dict[str, Any]:
    """`GET /v2`."""
    return {"name": "edgeflow-agent", "version": version.VERSION, "extensions": _EXTENSIONS}


def model(serving: Serving) -> dict[str, Any]:
    """`GET /v2/models/{model}`."""
    return {
        "name": serving.model.name,
        "versions": [serving.model.version],
        "platform": _PLATFORM,
        "inputs": [_tensor(spec) for spec in serving.interface.inputs],
        "outputs": [_tensor(spec) for spec in serving.interface.outputs],
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": oip_tensors.datatype(spec),
        "shape": oip_tensors.shape(spec),
    }


def config(serving: Serving) -> dict[str, Any]:
    """`GET /v2/models/{model}/config`. A batch is a dimension of the tensors like any other."""
    return {
        "name": serving.model.name,
        "platform": _PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": 0,
        "input": [_configured(spec) for spec in serving.interface.inputs],
        "output": [_configured(spec) for spec in serving.interface.outputs],
    }


def _configured(spec: TensorSpec) -> dict[str, Any]:
    datatype = oip_tensors.datatype(spec)
    return {
        "name": spec.name,
        "data_type": "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}",
        "dims": oip_tensors.shape(spec),
    }


def stats(serving: Serving) -> dict[str, Any]:
    """`GET /v2/models/{model}/stats`: the runs since the model was loaded."""
    counted = serving.stats
    good = counted.requests - counted.errors
    whole = {"count": counted.requests, "ns": round(counted.seconds * 1e9)}
    none = {"count": 0, "ns": 0}
    return {
        "model_stats": [
            {
                "name": serving.model.name,
                "version": serving.model.version,
                "inference_count": good,
                "execution_count": counted.requests,
                "inference_stats": {
                    "success": {"count": good, "ns": round(counted.mean_s() * good * 1e9)},
                    "fail": {"count": counted.errors, "ns": round(counted.mean_s() * counted.errors * 1e9)},
                    "queue": none,
                    "compute_input": none,
                    "compute_infer": whole,
                    "compute_output": none,
                },
                "batch_stats": [],
            }
        ]
    }


def index(serving: Serving | None) -> list[dict[str, Any]]:
    """`POST /v2/repository/index`."""
    if serving is None:
        return []
    return [{"name": serving.model.name, "version": serving.model.version, "state": "READY", "reason": ""}]
