"""What every part of the typed client builds on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from edgeflow_mlflow.notebook import Rows

T = TypeVar("T", bound=msgspec.Struct)


class Calls(ABC):
    """One request, and every page of a list; `client.Client` does both."""

    @abstractmethod
    def _call(self, method: str, path: str, kind: type[T], body: msgspec.Struct | None = None) -> T:
        """One request."""

    @abstractmethod
    def _all(
        self,
        path: str,
        kind: type[T],
        items: Callable[[T], Sequence[Any]],
        query: dict[str, str] | None = None,
    ) -> Rows[Any]:
        """Every page of a list."""

    @abstractmethod
    def _text(self, path: str) -> str:
        """What a route answers that does not answer JSON."""
