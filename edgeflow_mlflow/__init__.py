"""The server side of Edgeflow: an MLflow plugin that adds the fleet.

Training scripts need one thing of it: `from edgeflow_mlflow import log_model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeflow_mlflow.model_logging import log_model

__all__ = ["log_model"]


def __getattr__(name: str) -> Any:
    # NumPy and MLflow are loaded when the function is used, not whenever a module of ours is.
    if name == "log_model":
        from edgeflow_mlflow.model_logging import log_model

        return log_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
