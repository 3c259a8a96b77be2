"""The server side of Edgeflow: an MLflow plugin that adds the fleet.

Training scripts need little of it: `log_model`, and `log_dataset` for data whose models may have to be found
again. `Client` is everything else, from a notebook.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeflow_mlflow.client import Client
    from edgeflow_mlflow.dataset_logging import identify_dataset, log_dataset, log_parent_model
    from edgeflow_mlflow.model_logging import log_model

__all__ = ["Client", "identify_dataset", "log_dataset", "log_model", "log_parent_model"]

_HOMES = {
    "Client": "client",
    "identify_dataset": "dataset_logging",
    "log_dataset": "dataset_logging",
    "log_model": "model_logging",
    "log_parent_model": "dataset_logging",
}


def __getattr__(name: str) -> Any:
    # NumPy and MLflow are loaded when something is used, not whenever a module of ours is.
    if name in _HOMES:
        return getattr(importlib.import_module(f"edgeflow_mlflow.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
