"""Pictures to work with, and the examples whose models come out of public wheels."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edgeflow_agent.wire.documents import TensorSpec

EXAMPLES = Path(__file__).parents[2] / "examples" / "models"


def pixels(height: int, width: int, seed: int = 0, channels: int = 3) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png(array: npt.NDArray[np.uint8], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(file, "PNG", **options)
    return file.getvalue()


def spec(name: str, shape: tuple[Any, ...], dtype: str = "float") -> TensorSpec:
    return TensorSpec(name=name, dtype=f"tensor({dtype})", shape=shape)


@pytest.fixture(scope="session")
def wheels(request: pytest.FixtureRequest) -> Path:
    """Where wheels are unpacked that are not installed: kept from run to run."""
    return Path(request.config.cache.mkdir("wheels"))


@pytest.fixture(scope="session")
def example() -> Callable[[str], ModuleType]:
    """An example script as a module."""

    def load(name: str) -> ModuleType:
        sys.path.insert(0, str(EXAMPLES))
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(str(EXAMPLES))

    return load
