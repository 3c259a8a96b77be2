"""Whether a target that failed is given the same once more."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

# By what a device or the server says of an end. A reason in no class speaks of the model or of the device's
# trust: the same again would end the same.
CLASSES: dict[str, frozenset[str]] = {
    "transfer": frozenset({"unreachable", "slow", "transfer"}),
    "silence": frozenset({"deadline"}),
    "space": frozenset({"no_space", "disk"}),
}
DEFAULT: dict[str, int] = {"transfer": 3, "silence": 1, "space": 0}
MOST = 20

_FIRST = timedelta(seconds=30)
_LONGEST = timedelta(hours=1)


def reasons(allowed: Mapping[str, int], attempts: int) -> frozenset[str]:
    """The reasons after which somebody who has been given it `attempts` times may have another try."""
    classes = (CLASSES[name] for name, times in allowed.items() if times >= attempts)
    return frozenset().union(*classes)


def wait(attempts: int) -> timedelta:
    """How long after the end of the last of so many attempts the next may begin."""
    return min(_LONGEST, _FIRST * (1 << min(attempts - 1, 10)))
