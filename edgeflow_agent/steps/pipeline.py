"""A model's steps as one object that any number of threads may share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

FILE = "steps.json"


class Feed(dict[str, Any]):
    """What a graph takes, by input name, and what `after` must know of the request it came from."""


class Pipeline:
    """The steps of one model. Immutable."""

    takes_input: bool = False  # `before` makes the feed; else the request is read as without steps
    takes_image: bool = False  # ... from the bytes of a JPEG or PNG
    gives_answer: bool = False  # `after` makes the answer; else the outputs are answered as they are

    def before(self, value: Any) -> Feed:
        """The feed of the graph from a decoded JSON value, or from the bytes of an image or a raw body.
        Raise InputError that names the step and what is wrong."""
        raise NotImplementedError

    def after(self, outputs: Mapping[str, npt.NDArray[Any]], feed: Feed | None = None) -> Any:
        """The answer, ready for JSON. `feed` is what `before` gave for this very request: boxes go back to
        its image through it, and state comes from it."""
        raise NotImplementedError


def beside(path: Path) -> Pipeline | None:
    """The steps that lie beside a graph; None when there are none. Raise ModelError when they are broken."""
    return load(path.parent / FILE) if (path.parent / FILE).is_file() else None


def load(source: Any) -> Pipeline:
    """A pipeline from a path, the document as a dict, or its bytes."""
    raise NotImplementedError
