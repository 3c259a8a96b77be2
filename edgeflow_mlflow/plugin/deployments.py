"""The deployments plugin: `mlflow deployments … -t edgeflow` and `get_deploy_client("edgeflow")`.

MLflow wants exactly one client class and the functions `run_local` and `target_help` in this module.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import mlflow
import msgspec
from mlflow.deployments import PredictionsResponse, base

from edgeflow_agent import typed
from edgeflow_mlflow.api import records
from edgeflow_mlflow.client import ApiError, Client, server_address
from edgeflow_mlflow.plugin import deploy_keys

T = TypeVar("T", bound=msgspec.Struct)
_FAILED = ("failed", "rejected", "rolled_back", "timed_out")


class EdgeflowDeploymentClient(base.BaseDeploymentClient):
    """Deploys ONNX models of the registry to devices. Endpoints are fleets.

    `target_uri` is `edgeflow` for the tracking server, or `edgeflow:http://host:port`.
    """

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri=target_uri)
        self._client = Client(server_address(target_uri, mlflow.get_tracking_uri()))

    # ---- deployments

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: dict[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Bind a model version to devices; `config` has the keys of `target_help()`."""
        _check_flavor(flavor)
        keys = deploy_keys.read(config, "create")
        body = _convert(
            records.DeploymentCreate,
            {
                "name": name,
                "model_uri": model_uri,
                "where": _where(keys["where"], endpoint) or {},
                "runtime": keys["runtime"],
                "monitor": keys["monitor"],
                "trial": keys["trial"],
                "rollout": keys["rollout"],
                **keys["request"],
            },
        )
        created = self._client.create_deployment(body)
        return self._finish(created, keys["client"])

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: dict[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Move a deployment to another version, other settings or other devices."""
        _check_flavor(flavor)
        keys = deploy_keys.read(config, "update")
        present = {
            "model_uri": model_uri,
            "where": _where(keys["where"], endpoint),
            "runtime": keys["runtime"] or None,
            "monitor": keys["monitor"] or None,
            "trial": keys["trial"] or None,
            "rollout": keys["rollout"] or None,
            **keys["request"],
        }
        body = _convert(
            records.DeploymentChange, {key: value for key, value in present.items() if value is not None}
        )
        return self._finish(self._client.change_deployment(name, body), keys["client"])

    def delete_deployment(
        self, name: str, config: dict[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """End a deployment; its devices stop serving unless `keep_serving` is true."""
        del endpoint  # a name is unique whatever its fleet
        keys = deploy_keys.read(config, "delete")["client"]
        wait_s = keys.get("wait", 0.0)
        targets = self._client.deployment(name).deployment.targets if wait_s else []
        ended = self._client.delete_deployment(name, keep_serving=keys.get("keep_serving", False))
        if not targets:
            return
        found = self._client.await_release(ended, targets, wait_s)
        _check_ends(name, found)
        waiting = [item.target for item in found if item.finished_at is None]
        if waiting:
            raise ApiError(
                f"{name} is deleted, but {len(waiting)} of {len(found)} devices have not let go of it after "
                f"{wait_s:g} s ({', '.join(waiting[:5])}); they do when they hear of it"
            )

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """All deployments, or those of a fleet."""
        return [
            msgspec.to_builtins(item)
            for item in self._client.deployments()
            if endpoint is None or item.fleet == endpoint
        ]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """A deployment with the state of each device and the lineage of its model."""
        detail = self._client.deployment(name)
        if endpoint is not None and detail.deployment.fleet != endpoint:
            raise ApiError(
                f"deployment {name!r} does not belong to fleet {endpoint!r}",
                status=404,
                error_code="RESOURCE_DOES_NOT_EXIST",
            )
        shown: dict[str, Any] = msgspec.to_builtins(detail.deployment)
        shown["executions"] = msgspec.to_builtins(detail.executions)
        shown["lineage"] = detail.lineage
        return shown

    # ---- predictions

    def predict(
        self,
        deployment_name: str | None = None,
        inputs: Any = None,
        endpoint: str | None = None,
    ) -> PredictionsResponse:
        """Ask one connected device of a deployment (or of a fleet) over MQTT.

        `inputs`: a DataFrame, an array, a list, a dict as `POST /infer` takes it, or the bytes of an image or
        a file when the model's steps take them.
        """
        name = deployment_name or self._deployment_of(endpoint)
        answer = self._client.predict(name, records.PredictRequest(inputs=_plain(inputs)))
        if answer.status != 200:
            error = answer.answer.get("error", {}) if isinstance(answer.answer, dict) else {}
            raise ApiError(
                f"target {answer.target!r} answered {answer.status}: {error.get('message', answer.answer)}",
                error_code="INVALID_PARAMETER_VALUE",
            )
        outputs = answer.answer.get("outputs", {})
        only = next(iter(outputs.values())) if len(outputs) == 1 else outputs
        return PredictionsResponse(
            {
                "predictions": answer.answer.get("result", answer.answer.get("labels", only)),
                "outputs": outputs,
                "model": answer.answer.get("model"),
                "target": answer.target,
            }
        )

    def _deployment_of(self, endpoint: str | None) -> str:
        for item in self._client.deployments():
            if endpoint is not None and item.fleet == endpoint:
                return item.name
        raise ApiError(
            f"no deployment is bound to fleet {endpoint!r}", status=404, error_code="RESOURCE_DOES_NOT_EXIST"
        )

    def predict_stream(
        self,
        deployment_name: str | None = None,
        inputs: Any = None,
        endpoint: str | None = None,
    ) -> NoReturn:
        """Not offered: a device answers a request at once."""
        raise ApiError(
            "devices do not stream answers; use predict, or POST to a device's own /infer",
            error_code="NOT_IMPLEMENTED",
        )

    def explain(
        self,
        deployment_name: str | None = None,
        df: Any = None,
        endpoint: str | None = None,
    ) -> NoReturn:
        """Not offered: explanations need the training framework, which no device has."""
        raise ApiError(
            "Edgeflow does not explain predictions: devices run the ONNX graph only. Load the model where "
            "its training framework is and explain it there (for example with mlflow.shap)",
            error_code="NOT_IMPLEMENTED",
        )

    # ---- endpoints are fleets

    def create_endpoint(self, name: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        """A fleet, from `config` with either `selector` or `targets`."""
        body = _convert(records.FleetCreate, {"name": name, **_fleet(config)})
        return _shown(self._client.create_fleet(body))

    def update_endpoint(self, endpoint: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        """Define a fleet anew."""
        return _shown(self._client.change_fleet(endpoint, _convert(records.FleetChange, _fleet(config))))

    def delete_endpoint(self, endpoint: str) -> None:
        """Forget a fleet."""
        self._client.delete_fleet(endpoint)

    def list_endpoints(self) -> list[dict[str, Any]]:
        """All fleets."""
        return [_shown(item) for item in self._client.fleets()]

    def get_endpoint(self, endpoint: str) -> dict[str, Any]:
        """One fleet and its targets."""
        return _shown(self._client.fleet(endpoint))

    # ---- waiting

    def _finish(self, view: records.DeploymentView, client_keys: dict[str, Any]) -> dict[str, Any]:
        wait_s = client_keys.get("wait", 0.0)
        if wait_s:
            for detail in self._client.watch(view.name, wait_s):
                view = detail.deployment
            _check_ends(view.name, detail.executions)
            if view.status == "running":
                raise ApiError(f"{view.name} is still under way after {wait_s:g} s; it goes on by itself")
        shown: dict[str, Any] = msgspec.to_builtins(view)
        return shown


def _check_ends(name: str, executions: Sequence[records.ExecutionView]) -> None:
    bad = [item for item in executions if item.state in _FAILED]
    if bad:
        first = bad[0]
        raise ApiError(
            f"{name}: {len(bad)} of {len(executions)} devices failed; "
            f"{first.target}: {first.state}, {first.reason}: {first.message}"
        )


def _shown(fleet: records.FleetView) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(fleet)
    return shown


def _check_flavor(flavor: str | None) -> None:
    if flavor not in (None, "onnx"):
        raise ApiError(
            f"devices run ONNX models only, not the flavor {flavor!r}; leave --flavor out",
            error_code="INVALID_PARAMETER_VALUE",
        )


def _where(keys: dict[str, Any], endpoint: str | None) -> dict[str, Any] | None:
    if endpoint:
        if keys:
            raise ApiError(
                "give either --endpoint or one of -C target, targets, fleet, selector",
                error_code="INVALID_PARAMETER_VALUE",
            )
        return {"fleet": endpoint}
    return keys or None


def _fleet(config: dict[str, Any] | None) -> dict[str, Any]:
    given = dict(config or {})
    if isinstance(given.get("targets"), str):
        given["targets"] = [word.strip() for word in given["targets"].split(",") if word.strip()]
    return given


def _convert(kind: type[T], value: dict[str, Any]) -> T:
    try:
        return typed.convert(kind, value)
    except msgspec.ValidationError as error:
        raise ApiError(str(error), error_code="INVALID_PARAMETER_VALUE") from error


def _plain(inputs: Any) -> Any:
    if isinstance(inputs, bytes):
        return {"b64": base64.b64encode(inputs).decode()}
    if hasattr(inputs, "columns"):  # a pandas DataFrame
        if list(inputs.columns) == list(range(len(inputs.columns))):
            # Names that pandas made up, as of a list of lists that `mlflow deployments predict` has read.
            return [list(row) for row in inputs.itertuples(index=False, name=None)]
        return inputs.to_dict(orient="records")
    if hasattr(inputs, "tolist"):  # a NumPy array, or a Series
        return inputs.tolist()
    if isinstance(inputs, dict):
        return {key: _plain(value) for key, value in inputs.items()}
    return inputs


def run_local(
    name: str, model_uri: str, flavor: str | None = None, config: dict[str, Any] | None = None
) -> None:
    """Try a model on this machine: a server and an agent of their own, until Ctrl-C."""
    from edgeflow_mlflow.plugin import local

    _check_flavor(flavor)
    local.run(name, model_uri, config or {})


def target_help() -> str:
    """What `mlflow deployments help -t edgeflow` prints."""
    return f"""Edgeflow deploys ONNX models of MLflow's registry to devices that run edgeflow-agent.

Target
  edgeflow                    the tracking server (MLFLOW_TRACKING_URI)
  edgeflow:http://host:port   another server

Model URIs
  models:/name/3  models:/name@alias  models:/name/latest  models:/m-ID  runs:/RUN_ID/path

Examples
  mlflow deployments create -t edgeflow --name iris -m models:/iris/1 -C target=robot-07
  mlflow deployments create -t edgeflow --name iris -m models:/iris@champion -C selector=site=lyon -C wait=60
  mlflow deployments update -t edgeflow --name iris -m models:/iris/2 -C trial_seconds=30
  mlflow deployments delete -t edgeflow --name iris -C keep_serving=true

Keys of -C
{deploy_keys.explain()}

An endpoint is a fleet: create_endpoint("lyon", config={{"selector": "site=lyon"}}), then --endpoint lyon.
"""
