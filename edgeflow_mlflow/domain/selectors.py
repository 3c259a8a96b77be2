"""Label selectors: `site=lyon,arm!=left,gpu` names the targets whose labels fulfil every part."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgeflow_mlflow import errors

LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
LABEL_VALUE = re.compile(r"[A-Za-z0-9._:/ +-]{0,256}")
MAX_LABELS = 32


class Operator(enum.StrEnum):
    """How a label is compared."""

    EQUALS = "="
    DIFFERS = "!="
    EXISTS = "exists"
    ABSENT = "absent"


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One part of a selector."""

    key: str
    operator: Operator
    value: str = ""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """A label that is absent differs from every value."""
        match self.operator:
            case Operator.EQUALS:
                return labels.get(self.key) == self.value
            case Operator.DIFFERS:
                return labels.get(self.key) != self.value
            case Operator.EXISTS:
                return self.key in labels
            case Operator.ABSENT:
                return self.key not in labels


def parse(text: str) -> tuple[Requirement, ...]:
    """Read a selector: parts `key=value`, `key!=value`, `key` and `!key`, separated by commas."""
    requirements = []
    for part in (piece.strip() for piece in text.split(",")):
        if "!=" in part:
            key, _, value = part.partition("!=")
            operator = Operator.DIFFERS
        elif "=" in part:
            key, _, value = part.partition("=")
            operator = Operator.EQUALS
        else:
            key, value = part.removeprefix("!"), ""
            operator = Operator.ABSENT if part.startswith("!") else Operator.EXISTS
        key, value = key.strip(), value.strip()
        if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            raise errors.InvalidError(
                f"cannot read {part!r} in the selector {text!r}: write parts like site=lyon, arm!=left, "
                "gpu or !gpu, separated by commas"
            )
        requirements.append(Requirement(key=key, operator=operator, value=value))
    return tuple(requirements)


def matches(requirements: tuple[Requirement, ...], labels: Mapping[str, str]) -> bool:
    """Whether every part holds."""
    return all(requirement.matches(labels) for requirement in requirements)


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels, or raise InvalidError that names the one that cannot be."""
    if len(labels) > MAX_LABELS:
        raise errors.InvalidError(f"{len(labels)} labels are over the limit of {MAX_LABELS}")
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key):
            raise errors.InvalidError(f"{key!r} cannot be a label: use letters, digits, '.', '_', '/', '-'")
        if not LABEL_VALUE.fullmatch(value):
            raise errors.InvalidError(f"{value[:80]!r} cannot be the value of label {key!r}")
    return dict(labels)
