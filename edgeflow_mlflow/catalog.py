"""Reading MLflow: from a model URI to its version, run, data sets and files.

MLflow's own data has gaps (a version without a run, a model id only in the source, a copied version);
each one found is written down with its reason instead of failing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mlflow.exceptions import MlflowException

from edgeflow_mlflow import errors

_MODELS = re.compile(r"models:/(?P<name>[^@/]+)(?:/(?P<version>[^@/]+)|@(?P<alias>[^@/]+))")
_LOGGED = re.compile(r"models:/(?P<id>m-[0-9a-f]{8,})")
_RUNS = re.compile(r"runs:/(?P<run>[0-9a-f]{32})/(?P<path>.+)")
_MAX_COPIES = 16
_FORMS = "models:/NAME/VERSION, models:/NAME@ALIAS, models:/NAME/latest, models:/m-ID or runs:/RUN_ID/PATH"


@dataclass(frozen=True, kw_only=True)
class Model:
    """One resolved model version. `alias` is set when the URI named one; `artifact_uri` is its folder."""

    name: str
    version: str
    artifact_uri: str
    run_id: str = ""
    model_id: str = ""
    alias: str = ""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the MLmodel file and its companions say: the ONNX file, the columns of the signature, the
    class labels, and the baseline file when there is one."""

    entry: str
    columns: tuple[dict[str, str], ...] = ()
    labels: tuple[str, ...] = ()
    baseline: str = ""


@dataclass(frozen=True)
class Catalog:
    """Reads through MLflow's stores, which the caller provides: a function for each, as MLflow makes them
    on first use. `repository` gives the place of an artifact URI as (repository, path in it)."""

    tracking: Callable[[], Any]
    registry: Callable[[], Any]
    repository: Callable[[str], tuple[Any, str]]

    # ---- model URIs

    def resolve(self, uri: str) -> Model:
        """The model that a URI names now; errors say what is wrong with it."""
        try:
            if match := _LOGGED.fullmatch(uri):
                return self._logged(match["id"])
            if match := _RUNS.fullmatch(uri):
                return self._of_run(match["run"], match["path"].rstrip("/"))
            if match := _MODELS.fullmatch(uri):
                return self._registered(match["name"], match["version"], match["alias"])
        except MlflowException as error:
            raise _translated(error, uri) from error
        raise errors.InvalidError(f"cannot deploy from {uri[:200]!r}: give {_FORMS}")

    def _registered(self, name: str, version: str | None, alias: str | None) -> Model:
        registry = self.registry()
        if alias is not None:
            found = registry.get_model_version_by_alias(name, alias)
        elif version == "latest":
            versions = registry.get_latest_versions(name)
            if not versions:
                raise errors.NotFoundError(f"model {name!r} has no versions")
            found = max(versions, key=lambda item: int(item.version))
        elif version is not None and version.isdigit():
            found = registry.get_model_version(name, version)
        else:
            raise errors.InvalidError(
                f"{version!r} is not a version of {name!r}: give a number, `latest` or @alias "
                "(stages are not supported, use aliases)"
            )
        model_id = found.model_id or ""
        run_id = found.run_id or ""
        source = found.source or ""
        for _ in range(_MAX_COPIES):
            if match := _LOGGED.fullmatch(source):
                model_id = model_id or match["id"]
                break
            match = _MODELS.fullmatch(source)
            if match is None or not (match["version"] or "").isdigit():
                break
            copied = registry.get_model_version(match["name"], match["version"])
            run_id, model_id, source = run_id or copied.run_id or "", copied.model_id or "", copied.source
        if model_id and not run_id:
            run_id = self._source_run(model_id)
        return Model(
            name=found.name,
            version=str(found.version),
            artifact_uri=registry.get_model_version_download_uri(found.name, str(found.version)),
            run_id=run_id,
            model_id=model_id,
            alias=alias or "",
        )

    def _source_run(self, model_id: str) -> str:
        try:
            return self.tracking().get_logged_model(model_id).source_run_id or ""
        except MlflowException:
            return ""

    def _logged(self, model_id: str) -> Model:
        logged = self.tracking().get_logged_model(model_id)
        return Model(
            name=logged.name,
            version=model_id,
            artifact_uri=logged.artifact_location,
            run_id=logged.source_run_id or "",
            model_id=model_id,
        )

    def _of_run(self, run_id: str, path: str) -> Model:
        run = self.tracking().get_run(run_id)
        for output in getattr(run.outputs, "model_outputs", None) or ():
            # Since MLflow 3 a model logged under a run's path lives in a logged model of its own.
            logged = self.tracking().get_logged_model(output.model_id)
            if logged.name == path:
                return self._logged(output.model_id)
        return Model(
            name=path.rsplit("/", 1)[-1],
            version=run_id,
            artifact_uri=f"{run.info.artifact_uri.rstrip('/')}/{path}",
            run_id=run_id,
        )

    # ---- files

    def fetch(self, model: Model, folder: Path) -> Description:
        """Copy the model's files into `folder` and read what they say of themselves."""
        place, path = self.repository(model.artifact_uri)
        try:
            place.download_artifacts(path, str(folder))
        except (MlflowException, OSError) as error:
            raise errors.UnprocessableError(
                f"the files of {model.name} {model.version} cannot be read from MLflow's artifacts: {error}"
            ) from error
        inner = folder / path if path else folder
        for item in inner.iterdir() if inner != folder else ():
            item.rename(folder / item.name)
        return describe(folder)

    # ---- lineage

    def lineage(self, model: Model) -> dict[str, Any]:
        """Run, parameters, metrics, source and data sets, as plain data to keep; gaps by name."""
        gaps: list[dict[str, str]] = []
        result: dict[str, Any] = {"run": None, "datasets": [], "logged_model": None, "gaps": gaps}
        if model.model_id:
            try:
                logged = self.tracking().get_logged_model(model.model_id)
                result["logged_model"] = {
                    "id": logged.model_id,
                    "name": logged.name,
                    "params": dict(logged.params or {}),
                    "metrics": {item.key: item.value for item in logged.metrics or ()},
                }
            except MlflowException as error:
                gaps.append({"what": "logged_model", "why": error.message})
        if not model.run_id:
            gaps.append({"what": "run", "why": "the model version names no training run"})
            return result
        try:
            run = self.tracking().get_run(model.run_id)
        except MlflowException as error:
            gaps.append({"what": "run", "why": error.message})
            return result
        result["run"] = run_facts(run)
        result["datasets"] = dataset_facts(run)
        if not result["datasets"]:
            gaps.append({"what": "datasets", "why": "the run logged none (mlflow.log_input)"})
        return result


def run_facts(run: Any) -> dict[str, Any]:
    """A run as plain data: who, when, from which source, parameters, metrics and tags."""
    tags = {key: value for key, value in run.data.tags.items() if key != "mlflow.log-model.history"}
    return {
        "id": run.info.run_id,
        "name": run.info.run_name,
        "experiment_id": str(run.info.experiment_id),
        "status": run.info.status,
        "user": tags.get("mlflow.user", run.info.user_id or ""),
        "started_ms": run.info.start_time,
        "ended_ms": run.info.end_time,
        "source": tags.get("mlflow.source.name", ""),
        "commit": tags.get("mlflow.source.git.commit", ""),
        "params": dict(run.data.params),
        "metrics": dict(run.data.metrics),
        "tags": {key: value for key, value in tags.items() if not key.startswith("mlflow.")},
    }


def dataset_facts(run: Any) -> list[dict[str, str]]:
    """The data sets that a run logged. MLflow's digest sees only the first rows; it is a hint."""
    found = []
    for entry in getattr(run.inputs, "dataset_inputs", None) or ():
        tags = {tag.key: tag.value for tag in entry.tags}
        found.append(
            {
                "name": entry.dataset.name,
                "digest": entry.dataset.digest,
                "source_type": entry.dataset.source_type,
                "source": entry.dataset.source,
                "context": tags.get("mlflow.data.context", ""),
            }
        )
    return found


def describe(folder: Path) -> Description:
    """Read the MLmodel file of a model folder; raise UnprocessableError when it is no ONNX model."""
    try:
        mlmodel = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise errors.UnprocessableError(
            "the artifacts hold no MLmodel file: log the model with edgeflow_mlflow.log_model or "
            "mlflow.onnx.log_model"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise errors.UnprocessableError(f"the MLmodel file cannot be read: {error}") from error
    flavors = mlmodel.get("flavors") or {} if isinstance(mlmodel, dict) else {}
    if "onnx" not in flavors:
        have = ", ".join(sorted(set(flavors) - {"python_function"})) or "none"
        raise errors.UnprocessableError(
            f"only ONNX models can go to a device, and this one has the flavor {have}: "
            "convert and log it with edgeflow_mlflow.log_model"
        )
    entry = str(flavors["onnx"].get("data", "model.onnx"))
    if not (folder / entry).is_file():
        raise errors.UnprocessableError(f"the model's file {entry!r} is missing from its artifacts")
    extra = _companion(folder / "extra_files" / "edgeflow.json")
    metadata = (mlmodel.get("metadata") or {}).get("edgeflow") or {}
    labels = extra.get("labels") or metadata.get("labels") or ()
    baseline = folder / "extra_files" / "baseline.json"
    return Description(
        entry=entry,
        columns=tuple(_columns(mlmodel)),
        labels=tuple(str(label) for label in labels),
        baseline="extra_files/baseline.json" if baseline.is_file() else "",
    )


def _companion(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _columns(mlmodel: dict[str, Any]) -> list[dict[str, str]]:
    try:
        inputs = json.loads((mlmodel.get("signature") or {}).get("inputs") or "[]")
    except ValueError:
        return []
    if not all(isinstance(item, dict) and "name" in item and item.get("type") != "tensor" for item in inputs):
        return []
    return [{"name": str(item["name"]), "type": str(item.get("type", "double"))} for item in inputs]


def _translated(error: MlflowException, uri: str) -> errors.ServerError:
    if error.error_code == "RESOURCE_DOES_NOT_EXIST":
        return errors.NotFoundError(f"{uri}: {error.message}")
    return errors.InvalidError(f"{uri}: {error.message}")
