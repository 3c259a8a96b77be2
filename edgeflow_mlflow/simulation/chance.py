"""What is left to chance, from a seed: asked twice, the answer is the same, in this run and in the next."""

from __future__ import annotations

import hashlib

# How long a device that is sent away stays away, at least.
AWAY_S = 60.0


def draw(seed: int, *words: str) -> float:
    """A number in [0, 1) that belongs to these words."""
    text = "\0".join((str(seed), *words))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48


def is_bad(seed: int, target: str, digest: str, share: float) -> bool:
    """Whether this device cannot live with this model."""
    return draw(seed, "bad", target, digest) < share


def is_away(seed: int, target: str, age_s: float, share: float) -> bool:
    """Whether the device is offline when the simulation is `age_s` old. At any moment about `share` of a
    fleet are, each at its own times."""
    if share <= 0:
        return False
    turn = int(age_s / AWAY_S + draw(seed, "phase", target))
    return draw(seed, "away", target, str(turn)) < share


def between(low: float, high: float, part: float) -> float:
    """The number that lies `part` of the way from `low` to `high`."""
    return low + (high - low) * part
