"""Graphs that ONNX Runtime has optimised once, kept on disk: loading one again takes about half of the memory
at the peak.

An optimised graph fits one model, one version of ONNX Runtime, one kind of processor and one set of
providers: these are its name. Its hash stands beside it, because a flipped byte in weights loads and runs.
Losing it loses nothing but time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
from collections.abc import Collection
from pathlib import Path

logger = logging.getLogger(__name__)

_SUFFIX = ".onnx"
_HASH = ".sha256"
_DIGEST_PART = 32
# What this process has found whole: place, time of change in ns, size.
_whole: set[tuple[str, int, int]] = set()


class CompiledGraph:
    """The optimised form of one model on this device, which is there or is to be made."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._draft = place.with_name(f".{place.stem}.{os.getpid()}.new")

    def is_whole(self) -> bool:
        """Whether the file is there and is what was written. Looked at once by each process."""
        try:
            if self._look() in _whole:
                return True
            wanted = self.place.with_suffix(_HASH).read_text(encoding="ascii").strip()
            with self.place.open("rb") as file:
                is_whole = hashlib.file_digest(file, "sha256").hexdigest() == wanted
            if is_whole:
                self.trust()
        except (OSError, UnicodeDecodeError):
            return False
        return is_whole

    def trust(self) -> None:
        """A child of this process has just made it: nothing can have damaged it."""
        with contextlib.suppress(OSError):
            _whole.add(self._look())

    def _look(self) -> tuple[str, int, int]:
        info = self.place.stat()
        return str(self.place), info.st_mtime_ns, info.st_size

    def draft(self) -> Path:
        """Where ONNX Runtime may write one that does not count yet."""
        self.place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._draft

    def keep(self) -> None:
        """Let the draft count. Its hash is written first: without the graph it means nothing. A power cut
        leaves what the hash finds out, so nothing is synced."""
        try:
            with self._draft.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            self.place.with_suffix(_HASH).write_text(digest, encoding="ascii")
            self._draft.replace(self.place)
        except OSError as error:
            logger.warning("the optimised graph is not kept: %s", error)
            self.discard()

    def discard(self) -> None:
        """Forget a draft."""
        with contextlib.suppress(OSError):
            self._draft.unlink()


def folder(state_dir: Path) -> Path:
    """Where they are kept."""
    return state_dir / "compiled"


def graph(folder: Path, digest: str, made_for: Collection[str]) -> CompiledGraph:
    """The optimised form of the model with that bundle digest; `made_for` says by what and for what it was
    optimised, besides this processor."""
    words = "\n".join((digest, platform.machine(), _processor(), *made_for))
    name = f"{digest[:_DIGEST_PART]}-{hashlib.sha256(words.encode()).hexdigest()[:16]}"
    return CompiledGraph(folder / f"{name}{_SUFFIX}")


def forget_all_but(folder: Path, digests: Collection[str]) -> None:
    """Remove the optimised forms of models that this device no longer has."""
    kept = {digest[:_DIGEST_PART] for digest in digests}
    for path in folder.glob("*"):
        if path.name.lstrip(".").partition("-")[0] not in kept:
            with contextlib.suppress(OSError):
                path.unlink()


def _processor() -> str:
    """What the processor can do: an optimised graph uses it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part", "CPU implementer")
    return "\n".join(sorted({line for line in text.splitlines() if line.startswith(wanted)}))
