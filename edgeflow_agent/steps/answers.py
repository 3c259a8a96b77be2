"""Steps on the answer as a whole: what is in it, what it is called, how many digits it has."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeflow_agent.steps.flow import After, Feed, Form
from edgeflow_agent.steps.scores import unfit


class Select(After, tag="select", frozen=True, kw_only=True):
    """Keep these, and nothing else."""

    names: tuple[str, ...]

    def fit(self, outputs: dict[str, Form]) -> None:
        kept = {name: _known(outputs, name) for name in self.names}
        outputs.clear()
        outputs.update(kept)

    def run(self, answer: dict[str, Any], feed: Feed) -> None:
        kept = {name: _present(answer, name) for name in self.names}
        answer.clear()
        answer.update(kept)


class Rename(After, tag="rename", frozen=True, kw_only=True):
    """Other names for what is in the answer."""

    names: dict[str, str]

    def __post_init__(self) -> None:
        if len(set(self.names.values())) != len(self.names):
            raise ValueError("two would have the same name")

    def fit(self, outputs: dict[str, Form]) -> None:
        for name in self.names:
            _known(outputs, name)
        if clash := sorted(set(self.names.values()) & (outputs.keys() - self.names.keys())):
            raise ValueError(f"there is a {clash[0]!r} already")
        renamed = {self.names.get(name, name): form for name, form in outputs.items()}
        outputs.clear()
        outputs.update(renamed)

    def run(self, answer: dict[str, Any], feed: Feed) -> None:
        for name in self.names:
            _present(answer, name)
        renamed = {self.names.get(name, name): value for name, value in answer.items()}
        answer.clear()
        answer.update(renamed)


class Round(After, tag="round", frozen=True, kw_only=True):
    """Round every fraction to so many digits after the point."""

    digits: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.digits <= 15:
            raise ValueError("digits must be from 0 to 15")

    def fit(self, outputs: dict[str, Form]) -> None:
        return

    def run(self, answer: dict[str, Any], feed: Feed) -> None:
        for name, value in answer.items():
            answer[name] = self._rounded(value)

    def _rounded(self, value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic)):
            value = plain(value)
        if isinstance(value, float):
            return round(value, self.digits)
        if isinstance(value, list):
            return [self._rounded(item) for item in value]
        if isinstance(value, dict):
            return {key: self._rounded(item) for key, item in value.items()}
        return value


def plain(value: Any) -> Any:
    """What JSON can hold; NaN and infinities stay, and become null when they are written."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _known(outputs: dict[str, Form], name: str) -> Form:
    if name not in outputs:
        raise ValueError(f"there is no {name!r}; there are {', '.join(map(repr, outputs)) or 'none'}")
    return outputs[name]


def _present(answer: dict[str, Any], name: str) -> Any:
    if name not in answer:
        raise unfit(f"there is no output {name!r}")
    return answer[name]
