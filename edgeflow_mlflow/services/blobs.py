"""Model files by content: `blobs/ab/<sha256>`, written once, never changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from edgeflow_agent.wire import documents
from edgeflow_mlflow import errors
from edgeflow_mlflow.services import leftovers

_CHUNK = 1 << 20


class BlobStore:
    """A folder of files named by their SHA-256. No name from outside is ever part of a path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sha256: str) -> Path:
        """Where a blob is, or would be."""
        if not documents.SHA256.fullmatch(sha256):
            raise errors.NotFoundError("a blob is named by its SHA-256: 64 lower-case hex digits")
        return self._folder / sha256[:2] / sha256

    def find(self, sha256: str) -> Path | None:
        """The file, or None when this server does not have it."""
        path = self.path(sha256)
        return path if path.is_file() else None

    def add(self, source: Path) -> tuple[str, int]:
        """Copy a file in; its digest and size. The file appears whole or not at all."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.sha256()
        size = 0
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=leftovers.INCOMING)
        try:
            with os.fdopen(handle, "wb") as target, source.open("rb") as reader:
                while chunk := reader.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            final = self.path(digest.hexdigest())
            final.parent.mkdir(mode=0o700, exist_ok=True)
            Path(name).chmod(0o400)
            Path(name).replace(final)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return digest.hexdigest(), size

    def free_bytes(self) -> int:
        """Room left on the disk."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return shutil.disk_usage(self._folder).free
