"""What is different between two things that are described by the same sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# In the order in which they are shown.
SECTIONS = (
    "model",
    "inputs",
    "outputs",
    "datasets",
    "code",
    "params",
    "metrics",
    "tags",
    "dependencies",
    "graph",
    "settings",
    "device",
    "live",
)
Portrait = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One entry that is not the same; None where a side does not have it."""

    name: str
    left: Any
    right: Any


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part: what differs, and the names of what is the same."""

    name: str
    differences: tuple[Difference, ...] = ()
    same: Mapping[str, Any] = field(default_factory=dict)


def compare(left: Portrait, right: Portrait) -> list[Section]:
    """Sections with differences first, each in the order of SECTIONS; a section that neither side has is left
    out."""
    sections = []
    for name in SECTIONS:
        one, other = left.get(name, {}), right.get(name, {})
        keys = list(dict.fromkeys([*one, *other]))
        if not keys:
            continue
        differing = [key for key in keys if one.get(key) != other.get(key)]
        sections.append(
            Section(
                name=name,
                differences=tuple(
                    Difference(name=key, left=one.get(key), right=other.get(key)) for key in differing
                ),
                same={key: one.get(key) for key in keys if key not in differing},
            )
        )
    return sorted(sections, key=lambda section: not section.differences)
