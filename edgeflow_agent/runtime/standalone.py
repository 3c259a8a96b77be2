"""Serving one model file without a server and without configuration."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeflow_agent import errors
from edgeflow_agent.config import AgentConfig
from edgeflow_agent.inference import slot, tensors, trial_load
from edgeflow_agent.runtime.serving import ServingThread
from edgeflow_agent.wire.documents import Interface, ModelRef


class Standalone:
    """One model file, served from `start` to `stop`."""

    def __init__(self, config: AgentConfig, path: Path) -> None:
        if not path.is_file():
            raise errors.ConfigError(f"there is no file {path}; give the path of an ONNX model")
        # In a child first: a file that hangs or eats memory gives an error instead of a dead terminal.
        trial_load.trial_load(path.absolute(), threads=config.threads)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._slot = slot.Slot()
        self._slot.swap(
            slot.load(
                path.absolute(),
                model=ModelRef(name=path.stem, version="file"),
                declared=Interface(),
                threads=config.threads,
                digest=digest,
            )
        )
        self._serving = ServingThread(config, self._slot)
        self.url = self._serving.url

    def start(self) -> None:
        """Begin to answer."""
        self._serving.start()

    def stop(self) -> None:
        """Answer what was asked, then end."""
        self._serving.stop()

    def example(self) -> str:
        """A body that the model takes."""
        serving = self._slot.current
        assert serving is not None
        return tensors.example(serving.interface)
