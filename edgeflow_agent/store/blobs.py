"""The content store: files named by their SHA-256, complete or partial, never changed once complete."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from edgeflow_agent import errors
from edgeflow_agent.store import crashpoints, durable
from edgeflow_agent.wire.documents import SHA256, FileRef

_CHUNK = 1 << 20


def digest_of(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class BlobStore:
    """`blobs/sha256/ab/<hex>` and `partial/<hex>.part` under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._partial = root / "partial"
        if not self._blobs.is_dir():
            self._blobs.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The folder above is synced with every write of the journal, this one with none.
            durable.sync_folder(self._blobs.parent)
        self._partial.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a complete blob is or would be."""
        return self._blobs / _checked(sha256)[:2] / sha256

    def partial(self, sha256: str) -> Path:
        """Where a download collects its bytes."""
        return self._partial / f"{_checked(sha256)}.part"

    def has(self, item: FileRef) -> bool:
        """Whether the blob is here and whole. A damaged one is removed, so that it is fetched again."""
        path = self.path(item.sha256)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return False
        if size == item.size and digest_of(path) == item.sha256:
            return True
        path.unlink()
        return False

    def admit(self, sha256: str) -> None:
        """Turn a finished partial file, whose digest the caller has checked, into a blob."""
        partial, path = self.partial(sha256), self.path(sha256)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            durable.sync_folder(self._blobs)
        partial.chmod(0o400)
        crashpoints.reach("blob.before_rename")
        partial.replace(path)
        durable.sync_folder(path.parent)
        crashpoints.reach("blob.after_rename")

    def missing_bytes(self, files: Iterable[FileRef]) -> int:
        """How much is still to be fetched, partial files counted."""
        need = 0
        for sha256, size in {item.sha256: item.size for item in files}.items():
            if self.path(sha256).exists():
                continue
            partial = self.partial(sha256)
            need += max(size - (partial.stat().st_size if partial.exists() else 0), 0)
        return need

    def free_bytes(self) -> int:
        """Space left for this user on the file system."""
        return shutil.disk_usage(self.root).free

    def check_space(self, files: Iterable[FileRef], *, keep_free: int) -> None:
        """Raise StateError when fetching `files` would leave less than `keep_free`."""
        need, free = self.missing_bytes(files), self.free_bytes()
        if need and free - need < keep_free:
            raise errors.StateError(
                f"the model needs {need} more bytes, {free} are free and {keep_free} must stay free "
                "(store.keep_free_mb); make room on the device",
                reason="no_space",
            )

    def sweep(self, keep: Iterable[str]) -> None:
        """Remove every blob and partial file whose digest is not in `keep`."""
        wanted = set(keep)
        for path in self._blobs.glob("*/*"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)
        for path in self._partial.iterdir():
            if path.name.removesuffix(".part") not in wanted:
                path.unlink(missing_ok=True)


def _checked(sha256: str) -> str:
    if not SHA256.fullmatch(sha256):
        raise errors.ContractError(f"{sha256[:80]!r} is not a SHA-256 in hex", reason="document")
    return sha256
