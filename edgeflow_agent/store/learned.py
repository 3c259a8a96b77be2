"""Baselines that this device has made itself, one file for each model, and whether the server has them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from edgeflow_agent import errors
from edgeflow_agent.drift import baseline_file
from edgeflow_agent.drift.baseline import Baseline
from edgeflow_agent.store import durable

logger = logging.getLogger(__name__)

_KEPT = 5


class LearnedBaselines:
    """Files `<digest of the bundle>.json` in one folder; beside it `.sent` once the server has it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, digest: str) -> Baseline | None:
        """The baseline that was learned for this bundle; a damaged one is learned anew."""
        try:
            return baseline_file.parse(self._file(digest).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, errors.ContractError) as error:
            logger.error("a learned baseline is of no use, and is learned again: %s", error)
            return None

    def keep(self, digest: str, content: bytes) -> Baseline:
        """Write it down, where there is a state folder that can be written. Raise ContractError when it is
        none."""
        baseline = baseline_file.parse(content)
        if not self._folder.parent.is_dir():
            return baseline  # an agent without a state folder keeps nothing
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._sent(digest).unlink(missing_ok=True)
            durable.replace(self._file(digest), content)
        except OSError as error:
            logger.error("a learned baseline is kept in memory only, and learned again next time: %s", error)
            return baseline
        self._forget_old()
        return baseline

    def unsent(self) -> Iterator[tuple[str, bytes]]:
        """The digest of the bundle and the file of each that the server does not have."""
        for file in self._files():
            if not self._sent(file.stem).exists():
                with contextlib.suppress(OSError):
                    yield file.stem, file.read_bytes()

    def sent(self, digest: str) -> None:
        """The server has this one, or will never take it."""
        with contextlib.suppress(OSError):
            self._sent(digest).touch(mode=0o600)

    def _files(self) -> list[Path]:
        with contextlib.suppress(OSError):
            return sorted(self._folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
        return []

    def _forget_old(self) -> None:
        for file in self._files()[:-_KEPT]:
            with contextlib.suppress(OSError):
                file.unlink()
                self._sent(file.stem).unlink(missing_ok=True)

    def _file(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"

    def _sent(self, digest: str) -> Path:
        return self._folder / f"{digest}.sent"
