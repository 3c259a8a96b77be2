"""Sketches of stored windows, read as quickly as they can be.

Most of a window are thousands of small numbers; what is to be checked of them is checked for many windows at
once, by `drift.reading`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import msgspec
import numpy as np
import numpy.typing as npt

from edgeflow_agent.drift import bins
from edgeflow_agent.drift.bins import Ints
from edgeflow_agent.drift.sparse import OUT_OF_RANGE, WRONG_LENGTH, Flat, Problems
from edgeflow_agent.wire import telemetry
from edgeflow_agent.wire.sketches import CategoricalRecord, NumericRecord
from edgeflow_agent.wire.telemetry import TelemetryWindow

_EMPTY = msgspec.Raw(b"[]")
_NO_LIST = "are no lists of whole numbers"
_LIST = msgspec.json.Decoder(list[int])
_LISTS = msgspec.json.Decoder(list[list[int]])


class PackedSparse(msgspec.Struct, frozen=True, gc=False):
    """Both lists of a `Sparse` as JSON. As lists of Python they would take ten times as much memory, and keep
    the garbage collector busy."""

    gap: msgspec.Raw = _EMPTY
    count: msgspec.Raw = _EMPTY


NOTHING = PackedSparse()
_NONE = np.zeros(0, dtype=np.uint8)


class PackedNumeric(NumericRecord, frozen=True, tag="numeric"):
    """A record of numbers, its counters as they came."""

    fine: PackedSparse = NOTHING  # type: ignore[assignment]
    quantiles: PackedSparse = NOTHING  # type: ignore[assignment]
    values: PackedSparse = NOTHING  # type: ignore[assignment]
    points: PackedSparse = NOTHING  # type: ignore[assignment]


class PackedCategorical(CategoricalRecord, frozen=True, tag="categorical"):
    """A record of words, its counters as they came."""

    counts: PackedSparse = NOTHING  # type: ignore[assignment]


PackedRecord = PackedNumeric | PackedCategorical


class PackedWindow(TelemetryWindow, frozen=True, kw_only=True, omit_defaults=True):
    """A window, the counters of its sketches as they came."""

    features: tuple[PackedRecord, ...] = ()


def records(payload: bytes) -> tuple[PackedRecord, ...]:
    """The sketches of a stored window. Raise ContractError when it cannot be read."""
    return telemetry.unpack_as(PackedWindow, payload).features


def flat(parts: Sequence[PackedSparse]) -> tuple[Flat, Problems]:
    """The counters of many records in a row. Those with a problem are left out."""
    try:
        # Read as one: a call for each costs more than what it reads.
        gaps, lengths = _together([part.gap for part in parts])
        counts, others = _together([part.count for part in parts])
    except (msgspec.MsgspecError, OverflowError):
        return _one_by_one(parts)
    if not np.array_equal(lengths, others):
        return _one_by_one(parts)
    return Flat(gaps=gaps, counts=counts, lengths=lengths), {}


def _together(texts: Sequence[msgspec.Raw]) -> tuple[Ints, Ints]:
    """All numbers, and how many each text has."""
    lists = _LISTS.decode(b"[%b]" % b",".join(texts))
    numbers = bins.whole(list(chain.from_iterable(lists))).astype(np.int64)
    return numbers, np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))


def _one_by_one(parts: Sequence[PackedSparse]) -> tuple[Flat, Problems]:
    problems: Problems = {}
    gaps, counts = [], []
    for number, part in enumerate(parts):
        try:
            gap, count = _whole(part.gap), _whole(part.count)
            if gap.size != count.size:
                raise ValueError(WRONG_LENGTH)
        except ValueError as error:
            problems[number] = str(error)
            gap = count = _NONE
        gaps.append(gap)
        counts.append(count)
    return Flat(
        gaps=np.concatenate(gaps, dtype=np.int64),
        counts=np.concatenate(counts, dtype=np.int64),
        lengths=np.array([gap.size for gap in gaps], dtype=np.int64),
    ), problems


def _whole(text: msgspec.Raw) -> npt.NDArray[np.integer]:
    if text is _EMPTY:
        return _NONE
    try:
        numbers = _LIST.decode(text)
    except msgspec.MsgspecError as error:
        raise ValueError(_NO_LIST) from error
    try:
        return bins.whole(numbers)
    except OverflowError as error:
        raise ValueError(OUT_OF_RANGE) from error
