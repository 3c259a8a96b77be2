"""Label selectors: `site=lyon,arm!=left,gpu,agent>=0.2` names the targets whose labels fulfil every part."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgeflow_mlflow import errors

LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
LABEL_VALUE = re.compile(r"[A-Za-z0-9._:/ +-]{0,256}")
MAX_LABELS = 32
# What every target says of itself, as if it were a label; a label of that name counts instead.
FACTS = ("agent", "onnxruntime", "platform")

_SET = re.compile(r"(?P<key>\S+)\s+(?P<word>in|notin)\s*\((?P<values>[^()]*)\)")
_COMPARED = re.compile(r"(?P<key>[^=!<>]+?)\s*(?P<sign>!=|>=|<=|=|>|<)\s*(?P<value>[^=!<>]*)")
_BARE = re.compile(r"(?P<sign>!?)\s*(?P<key>[^=!<>]+)")
_NUMBERS = re.compile(r"\d+")


class Operator(enum.StrEnum):
    """How a label is compared."""

    EQUALS = "="
    DIFFERS = "!="
    AT_LEAST = ">="
    AT_MOST = "<="
    OVER = ">"
    UNDER = "<"
    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "absent"


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One part of a selector."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """A label that is absent differs from every value, and is neither more nor less than any."""
        has = labels.get(self.key)
        match self.operator:
            case Operator.EQUALS | Operator.IN:
                return has in self.values
            case Operator.DIFFERS | Operator.NOT_IN:
                return has not in self.values
            case Operator.EXISTS:
                return has is not None
            case Operator.ABSENT:
                return has is None
            case _:
                return has is not None and self._ordered(has)

    def _ordered(self, has: str) -> bool:
        own, wanted = _version(has), _version(self.values[0])
        if not own or not wanted:
            return False  # no number in it: nothing to compare
        match self.operator:
            case Operator.AT_LEAST:
                return own >= wanted
            case Operator.AT_MOST:
                return own <= wanted
            case Operator.OVER:
                return own > wanted
            case _:
                return own < wanted


def _version(text: str) -> tuple[int, ...]:
    """The numbers in a version, without zeros at the end: 1.10 is more than 1.9, and 2 is 2.0."""
    numbers = [int(found[:18]) for found in _NUMBERS.findall(text)]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def parse(text: str) -> tuple[Requirement, ...]:
    """Read a selector: parts `key=value`, `key!=value`, `key>=1.2` (and >, <=, <), `key in (a, b)`,
    `key notin (a, b)`, `key` and `!key`, separated by commas."""
    return tuple(_requirement(part.strip(), text) for part in _parts(text))


def _parts(text: str) -> list[str]:
    """Cut at commas, but not within parentheses."""
    parts, depth = [""], 0
    for sign in text:
        if sign == "," and depth == 0:
            parts.append("")
            continue
        depth += (sign == "(") - (sign == ")")
        parts[-1] += sign
    return parts


def _requirement(part: str, text: str) -> Requirement:
    if found := _SET.fullmatch(part):
        operator = Operator.IN if found["word"] == "in" else Operator.NOT_IN
        key, values = found["key"], tuple(value.strip() for value in found["values"].split(","))
    elif found := _COMPARED.fullmatch(part):
        operator, key, values = Operator(found["sign"]), found["key"], (found["value"].strip(),)
    elif found := _BARE.fullmatch(part):
        operator = Operator.ABSENT if found["sign"] else Operator.EXISTS
        key, values = found["key"].strip(), ()
    else:
        raise _unreadable(part, text)
    is_order = operator in (Operator.AT_LEAST, Operator.AT_MOST, Operator.OVER, Operator.UNDER)
    if (
        not LABEL_KEY.fullmatch(key)
        or not all(LABEL_VALUE.fullmatch(value) for value in values)
        or (is_order and not _version(values[0]))
    ):
        raise _unreadable(part, text)
    return Requirement(key=key, operator=operator, values=values)


def _unreadable(part: str, text: str) -> errors.InvalidError:
    return errors.InvalidError(
        f"cannot read {part[:200]!r} in the selector {text[:200]!r}: write parts like site=lyon, arm!=left, "
        "agent>=0.2, ring in (canary, beta), gpu or !gpu, separated by commas"
    )


def matches(requirements: tuple[Requirement, ...], labels: Mapping[str, str]) -> bool:
    """Whether every part holds."""
    return all(requirement.matches(labels) for requirement in requirements)


def known(labels: Mapping[str, str], presence: Mapping[str, object]) -> dict[str, str]:
    """The labels of a target, and what it says of itself where they say nothing."""
    facts = {name: str(presence.get(f"{name}_version", presence.get(name, "")) or "") for name in FACTS}
    return {**{name: value for name, value in facts.items() if value}, **labels}


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
