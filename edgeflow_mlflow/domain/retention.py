"""Which windows are merged with which, and which of their numbers a device may send again."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta


class Span(enum.StrEnum):
    """How much a stored window covers."""

    RAW = "raw"
    HOUR = "hour"
    DAY = "day"


LENGTH = {Span.HOUR: timedelta(hours=1), Span.DAY: timedelta(days=1)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def bucket(end: datetime, span: Span) -> datetime:
    """When the hour or day began in which a window ended. One that ended with an hour belongs to it."""
    length = LENGTH[span]
    return _EPOCH + length * -((_EPOCH - end) // length) - length


def joined(ranges: Iterable[tuple[int, int]], numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Ranges from first to last and single numbers, as few ranges as hold exactly these."""
    found: list[tuple[int, int]] = []
    for first, last in sorted([*ranges, *((number, number) for number in numbers)]):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def holds(ranges: Sequence[tuple[int, int]], number: int) -> bool:
    """Whether a number is in one of the ranges."""
    return any(first <= number <= last for first, last in ranges)
