"""Store builders for the scheme `edgeflow+…`: MLflow's own stores, the registry with our hook.

MLflow loads this module while it is itself half imported, so it imports nothing of MLflow at the top.
"""

from __future__ import annotations

from typing import Any


def tracking_store(store_uri: str | None = None, artifact_uri: str | None = None, **_: Any) -> Any:
    """MLflow's SQL tracking store on the URI without our scheme."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from edgeflow_mlflow.plugin import compat

    return SqlAlchemyStore(compat.plain_uri(store_uri or ""), artifact_uri)


def registry_store(store_uri: str | None = None, **_: Any) -> Any:
    """MLflow's SQL registry store on the URI without our scheme, with the registry hook."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    from edgeflow_mlflow import config
    from edgeflow_mlflow.plugin import compat
    from edgeflow_mlflow.plugin.registry_hook import RegistryHook
    from edgeflow_mlflow.services import opening

    plain = compat.plain_uri(store_uri or "")
    store = SqlAlchemyStore(plain)
    return RegistryHook(opening.open_state(opening.resolve(config.load(), plain))).wrap(store)
