"""Where a model comes from that is served without an Edgeflow server: a file, a folder, or a version in any
MLflow's registry."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from edgeflow_agent import errors
from edgeflow_agent.config import AgentConfig
from edgeflow_agent.wire.documents import Column, Interface, ModelRef

_URI = re.compile(r"models:/(?P<name>[^@/]+)(?:/(?P<version>\d+)|@(?P<alias>[^@/]+))")
_COMPANION = Path("extra_files") / "edgeflow.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A graph on this disk and what is known of it."""

    path: Path
    model: ModelRef
    declared: Interface
    digest: str


def find(text: str, config: AgentConfig) -> Source:
    """What `text` names: a path, or `models:/name/3` or `models:/name@alias`, which is fetched first."""
    if text.startswith("models:"):
        match = _URI.fullmatch(text)
        if match is None:
            raise errors.ConfigError(
                f"{text!r} names no registered model; write models:/name/3 or models:/name@alias"
            )
        from edgeflow_agent.link import registry  # HTTP, which files do without

        folder, version = registry.pull(
            config.tracking_uri,
            match["name"],
            version=match["version"] or "",
            alias=match["alias"] or "",
            into=config.state_dir / "pulled",
            ca_file=config.ca_file,
            timeout_s=config.link_timeout_s,
        )
        return _of_folder(folder, ModelRef(name=match["name"], version=version))
    path = Path(text).absolute()
    if path.is_dir():
        return _of_folder(path, ModelRef(name=path.name, version="folder"))
    if not path.is_file():
        raise errors.ConfigError(
            f"there is no file {text}; give an ONNX file, a folder with one, or models:/name/version"
        )
    return _source(path, ModelRef(name=path.stem, version="file"), Interface())


def _of_folder(folder: Path, model: ModelRef) -> Source:
    graphs = sorted(folder.glob("*.onnx"))
    if (folder / "model.onnx") in graphs:
        graphs = [folder / "model.onnx"]
    if len(graphs) != 1:
        found = f"has {len(graphs)}: name one of them" if graphs else "has none"
        raise errors.ConfigError(f"a folder to be served has one ONNX file, and {folder} {found}")
    said = _companion(folder / _COMPANION)
    declared = Interface(
        columns=tuple(Column(name=name) for name in _words(said.get("columns"))),
        labels=_words(said.get("labels")),
    )
    return _source(graphs[0], model, declared)


def _source(path: Path, model: ModelRef, declared: Interface) -> Source:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(path=path, model=model, declared=declared, digest=digest)


def _companion(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise errors.ConfigError(
            f"{path} cannot be read: {error}; remove it, or log the model again"
        ) from error
    return value if isinstance(value, dict) else {}


def _words(value: Any) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()
