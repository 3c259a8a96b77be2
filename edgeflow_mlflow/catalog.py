"""Reading MLflow: from a model URI to its version, run, data sets and files.

MLflow's own data has gaps (a version without a run, a model id only in the source, a copied version);
each one found is written down with its reason instead of failing.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from edgeflow_agent.wire import documents
from edgeflow_mlflow import ancestry, errors
from edgeflow_mlflow.ancestry import Ancestry
from edgeflow_mlflow.domain import lineage, mlmodel

_MODELS = re.compile(r"models:/(?P<name>[^@/]+)(?:/(?P<version>[^@/]+)|@(?P<alias>[^@/]+))")
_LOGGED = re.compile(r"models:/(?P<id>m-[0-9a-f]{8,})")
_RUNS = re.compile(r"runs:/(?P<run>[0-9a-f]{32})/(?P<path>.+)")
_MAX_COPIES = 16
_MLMODEL = "MLmodel"
_MLMODEL_BYTES = 16 * 2**20
_COMPANION = "extra_files/edgeflow.json"
_BASELINE = "extra_files/baseline.json"
_STEPS = "extra_files/steps.json"
# A bundle has at most 64 files; a model folder a few besides.
_MAX_FILES = 256
_FORMS = "models:/NAME/VERSION, models:/NAME@ALIAS, models:/NAME/latest, models:/m-ID or runs:/RUN_ID/PATH"


class UnreadableError(errors.UnprocessableError):
    """The artifact store did not give the files this time; that says nothing about the model."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One resolved model version. `alias` is set when the URI named one; `artifact_uri` is its folder."""

    name: str
    version: str
    artifact_uri: str
    run_id: str = ""
    model_id: str = ""
    alias: str = ""

    @property
    def is_registered(self) -> bool:
        """Whether it is a version of a registered model; else it is a logged model or a run's artifact."""
        return self.version not in (self.model_id, self.run_id)


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the MLmodel file and its companions say: the ONNX file, the columns of the signature, the
    class labels, and the files of the baseline and the steps when there are any."""

    entry: str
    columns: tuple[dict[str, str], ...] = ()
    labels: tuple[str, ...] = ()
    baseline: str = ""
    steps: str = ""


@dataclass(frozen=True)
class Catalog:
    """Reads through MLflow's stores, which the caller provides: a function for each, as MLflow makes them
    on first use. `repository` gives the place of an artifact URI as (repository, path in it). Models over
    `max_bytes` are not copied."""

    tracking: Callable[[], Any]
    registry: Callable[[], Any]
    repository: Callable[[str], tuple[Any, str]]
    max_bytes: int | None = None

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
        # Since MLflow 3 a model logged under a run's path lives in a logged model of its own, and logging
        # again under that path makes another one: the newest is meant, as in MLflow itself.
        logged = [item for item in self._logged_by(run) if item.name == path]
        if logged:
            return self._logged(max(reversed(logged), key=lambda item: item.creation_timestamp).model_id)
        return Model(
            name=path.rsplit("/", 1)[-1],
            version=run_id,
            artifact_uri=f"{run.info.artifact_uri.rstrip('/')}/{path}",
            run_id=run_id,
        )

    def experiment_of(self, model: Model) -> str:
        """The experiment that a model that is not registered belongs to."""
        try:
            if model.model_id:
                return str(self.tracking().get_logged_model(model.model_id).experiment_id)
            return str(self.tracking().get_run(model.run_id).info.experiment_id)
        except MlflowException as error:
            raise _translated(error, model.name) from error

    def _logged_by(self, run: Any) -> list[Any]:
        found = []
        for output in getattr(run.outputs, "model_outputs", None) or ():
            try:
                found.append(self.tracking().get_logged_model(output.model_id))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # deleted since
                    raise
        return found

    # ---- files

    def fetch(self, model: Model, folder: Path) -> Description:
        """Copy what a bundle can hold into `folder` and read what it says of itself.

        The MLmodel file comes first: neither a model that cannot go to a device nor one that is too large
        is copied to find that out. Raise UnreadableError when the store is at fault, UnprocessableError
        when the model is.
        """
        try:
            return self._fetch(model, folder)
        except errors.ServerError:
            raise
        except Exception as error:  # each kind of store has errors of its own
            raise UnreadableError(
                f"the files of {model.name or model.artifact_uri} {model.version} cannot be read from "
                f"MLflow's artifacts: {error}"
            ) from error

    def _fetch(self, model: Model, folder: Path) -> Description:
        place, base = self.repository(model.artifact_uri)
        sizes, folders = _listing(place, base)
        if not sizes and not folders:
            raise UnreadableError(f"there are no files at {model.artifact_uri}")
        if _MLMODEL in sizes:
            if sizes[_MLMODEL] > _MLMODEL_BYTES:
                raise errors.UnprocessableError(f"the MLmodel file is over {_MLMODEL_BYTES} bytes")
            _copy(place, base, _MLMODEL, folder)
        entry = mlmodel.parse(_text(folder)).entry
        if "extra_files" in folders:
            inner, _ = _listing(place, f"{base}/extra_files" if base else "extra_files")
            sizes |= {f"extra_files/{name}": size for name, size in inner.items()}
        wanted = [name for name in sizes if documents.FILE_NAME.fullmatch(name) and name != _MLMODEL]
        wanted += [name for name in (_COMPANION, _BASELINE, _STEPS) if name in sizes]
        _check_size({name: sizes[name] for name in wanted}, self.max_bytes)
        if entry in wanted:
            for name in wanted:
                _copy(place, base, name, folder)
        return describe(folder)

    # ---- lineage

    def lineage(self, model: Model) -> dict[str, Any]:
        """Where a model comes from, as plain data to keep: run, logged model, every data set that it depends
        on, the edges between them, and gaps by name."""
        found = Ancestry(self.tracking, self.registry)
        root = self.node(model)
        found.climb(root)
        gaps = found.gaps
        result: dict[str, Any] = {
            "node": root,
            "run": None,
            "logged_model": None,
            "datasets": list(found.datasets.values()),
            "edges": lineage.as_rows(found.edges),
            "gaps": gaps,
        }
        if model.model_id:
            try:
                logged = self.tracking().get_logged_model(model.model_id)
                result["logged_model"] = ancestry.logged_facts(logged)
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
        result["run"] = ancestry.run_facts(run)
        if not result["datasets"]:
            gaps.append({"what": "datasets", "why": "the run logged none (mlflow.log_input)"})
        return result

    @staticmethod
    def node(model: Model) -> str:
        """Where a model stands in the graph of lineage."""
        if model.is_registered:
            return lineage.version(model.name, model.version)
        return lineage.logged(model.model_id) if model.model_id else lineage.run(model.run_id)


# ---- model folders


def _listing(place: Any, path: str) -> tuple[dict[str, int], set[str]]:
    """The files of a folder with their sizes, and its folders."""
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    for item in place.list_artifacts(path or None):
        name = item.path.removeprefix(f"{path}/")
        if item.is_dir:
            folders.add(name)
        else:
            sizes[name] = item.file_size or 0
    return sizes, folders


def _check_size(sizes: Mapping[str, int], limit: int | None) -> None:
    if len(sizes) > _MAX_FILES:
        raise errors.UnprocessableError(f"the model's folder holds {len(sizes)} files, over {_MAX_FILES}")
    total = sum(sizes.values())
    if limit is not None and total > limit:
        raise errors.UnprocessableError(
            f"the model's folder holds {total / 2**20:.0f} MiB, over the limit of {limit / 2**20:.0f} "
            "([limits] model_mb)"
        )


def _copy(place: Any, base: str, name: str, folder: Path) -> None:
    target = folder / name
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="copying-") as own:
        Path(place.download_artifacts(f"{base}/{name}" if base else name, own)).replace(target)


def describe(folder: Path) -> Description:
    """Read the MLmodel file of a model folder; raise UnprocessableError when it is no ONNX model."""
    said = mlmodel.parse(_text(folder))
    if not (folder / said.entry).is_file():
        raise errors.UnprocessableError(f"the model's file {said.entry!r} is missing from its artifacts")
    return Description(
        entry=said.entry,
        columns=said.columns,
        labels=mlmodel.labels(_companion(folder / _COMPANION).get("labels")) or said.labels,
        baseline=_BASELINE if (folder / _BASELINE).is_file() else "",
        steps=_STEPS if (folder / _STEPS).is_file() else "",
    )


def _text(folder: Path) -> str:
    try:
        return (folder / _MLMODEL).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise errors.UnprocessableError(
            "the artifacts hold no MLmodel file: log the model with edgeflow_mlflow.log_model or "
            "mlflow.onnx.log_model"
        ) from error
    except (UnicodeDecodeError, OSError) as error:
        raise errors.UnprocessableError(f"the MLmodel file cannot be read: {error}") from error


def _companion(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _translated(error: MlflowException, uri: str) -> errors.ServerError:
    if error.error_code == "RESOURCE_DOES_NOT_EXIST":
        return errors.NotFoundError(f"{uri}: {error.message}")
    return errors.InvalidError(f"{uri}: {error.message}")
