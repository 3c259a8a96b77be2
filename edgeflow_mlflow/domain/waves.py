"""Who goes when: the targets of a rollout divided into waves."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeflow_mlflow import errors
from edgeflow_mlflow.domain import selectors

MAX_WAVES = 50
_COUNT = re.compile(r"\d{1,7}")
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)\s*%")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A target that a rollout is to reach."""

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    online: bool = True


@dataclass(frozen=True, kw_only=True)
class Share:
    """Up to so many targets in all, or so many percent of them, this wave and those before it together."""

    count: int = 0
    percent: float = 0.0

    def total(self, of: int) -> int:
        """How many targets that is, of so many."""
        return min(of, self.count or math.ceil(of * self.percent / 100 - 1e-9))


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """All targets with these labels that no earlier wave has."""

    selector: tuple[selectors.Requirement, ...]


Wave = Share | Labelled
EVERYBODY: tuple[Wave, ...] = (Share(percent=100),)


def split(text: str) -> list[str]:
    """The waves of one line: `1,10%,50%,100%`, or with `;` between them where a selector has commas."""
    return [part.strip() for part in text.split(";" if ";" in text else ",") if part.strip()]


def parse(words: Sequence[str]) -> tuple[Wave, ...]:
    """Read waves such as `1`, `10%` and `ring=canary`; none is one wave of everybody. Raise InvalidError."""
    if len(words) > MAX_WAVES:
        raise errors.InvalidError(f"{len(words)} waves are over the limit of {MAX_WAVES}")
    waves = tuple(_wave(word.strip()) for word in words) or EVERYBODY
    shares = [wave for wave in waves if isinstance(wave, Share)]
    for kind in ("count", "percent"):
        sizes = [getattr(share, kind) for share in shares if getattr(share, kind)]
        if sizes != sorted(set(sizes)):
            raise errors.InvalidError(
                f"waves grow: each number counts all targets up to its wave, so {', '.join(words)} does "
                "not fit; write them as in 1,10%,50%,100%"
            )
    return waves


def _wave(word: str) -> Wave:
    if _COUNT.fullmatch(word) and int(word) > 0:
        return Share(count=int(word))
    percent = _PERCENT.fullmatch(word)
    if percent and 0 < float(percent[1]) <= 100:
        return Share(percent=float(percent[1]))
    if word[:1].isdigit() or not word:
        raise errors.InvalidError(
            f"{word!r} is no wave: write a number of targets, a share such as 10%, or labels such as "
            "ring=canary"
        )
    return Labelled(selector=selectors.parse(word))


def divide(candidates: Sequence[Candidate], waves: Sequence[Wave], seed: str) -> list[list[str]]:
    """The ids of each wave, none of them empty; whoever is left makes a last wave.

    Within a wave the order is that of a hash, so that it is not always the same robots that go first; those
    that are online come first of all, as a wave waits for evidence.
    """
    remaining = sorted(candidates, key=lambda item: (not item.online, place(seed, item.id)))
    divided: list[list[str]] = []
    placed = 0
    for wave in waves:
        if isinstance(wave, Share):
            cut = max(0, wave.total(len(candidates)) - placed)
            taken, remaining = remaining[:cut], remaining[cut:]
        else:
            taken = [item for item in remaining if selectors.matches(wave.selector, item.labels)]
            remaining = [item for item in remaining if item not in taken]
        placed += len(taken)
        divided.append([item.id for item in taken])
    divided.append([item.id for item in remaining])
    return [wave for wave in divided if wave]


def place(seed: str, name: str) -> float:
    """A number from 0 to 1 that is always the same for this name under this seed, and even over names."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
