"""The short way from a JSON body to the feed of a model: one typed pass over the bytes.

Only for what most requests are, numbers for one input; whatever else comes takes the long way, which also
knows what to say about it. Both ways give the same feed: the tests compare them.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from edgeflow_agent.wire.documents import Interface, TensorSpec

Decode = Callable[[bytes | memoryview], dict[str, Any] | None]

_DTYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(double)": np.float64}
_MOST_DIMENSIONS = 6
_LONG = 1024  # bytes of a body from which packing is faster
_HEAD = 64  # bytes of a body that tell which form it has


def plan(interface: Interface) -> Decode:
    """A decoder for models of one interface; it gives None for what takes the long way."""
    if len(interface.inputs) != 1:
        return _never
    (spec,) = interface.inputs
    columns = [item.name for item in interface.columns]
    if spec.dtype not in _DTYPES or not 2 <= len(spec.shape) <= _MOST_DIMENSIONS or _is_fixed(spec.shape[0]):
        return _never
    if "inputs" in (spec.name, *columns):
        return _never
    read = _reader(spec, columns)
    dtype, name = _DTYPES[spec.dtype], spec.name
    inner = tuple(spec.shape[1:])

    def decode(body: bytes | memoryview) -> dict[str, Any] | None:
        try:
            batch = read(body)
            array = np.array(batch, dtype) if len(body) < _LONG else _packed(batch, len(spec.shape), dtype)
        except (msgspec.MsgspecError, RecursionError, ValueError):  # ValueError: rows of different lengths
            return None
        given = array.shape[1:]
        if given != inner and not _fits(given, inner):
            return None
        return {name: array}

    return decode


def _packed(batch: Sequence[Any], rank: int, dtype: Any) -> Any:
    """What `np.array` gives, in a third of the time: it asks every single number what it is, and here all are
    floats already. Raise ValueError when the lists are of different lengths, or empty."""
    shape, rows = [len(batch)], batch
    for _ in range(rank - 2):
        shape.append(_length(rows))
        rows = list(itertools.chain.from_iterable(rows))
    shape.append(_length(rows))
    pack = struct.Struct(f"{shape[-1]}{np.dtype(dtype).char}").pack
    return np.frombuffer(b"".join([pack(*row) for row in rows]), dtype).reshape(shape)


def _length(rows: Sequence[Any]) -> int:
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError("not a full table")
    return lengths.pop()


def _fits(given: Sequence[int], inner: Sequence[Any]) -> bool:
    return len(given) == len(inner) and all(
        size == wanted or not _is_fixed(wanted) for size, wanted in zip(given, inner, strict=True)
    )


def _reader(spec: TensorSpec, columns: Sequence[str]) -> Callable[[bytes | memoryview], Any]:
    """What gives the nested lists of a body, a batch in any case; it raises when the body is none of those
    that are known here."""
    rank = len(spec.shape)
    # JSON knows no infinity: a number that is too large for the type would become one.
    largest = float(np.finfo(_DTYPES[spec.dtype]).max)
    number = Annotated[float, msgspec.Meta(ge=-largest, le=largest)]
    batch: Any = number
    for _ in range(rank):
        one, batch = batch, list[batch]
    batch_of, one_of = msgspec.json.Decoder(batch).decode, msgspec.json.Decoder(one).decode
    named_of = msgspec.json.Decoder(_record([("inputs", _record([(spec.name, batch)]))])).decode
    plain_of = msgspec.json.Decoder(_record([("inputs", batch)])).decode
    record_of = None
    if rank == 2 and len(set(columns)) == len(columns) == spec.shape[1] and spec.name not in columns:
        record_of = msgspec.json.Decoder(_record([(column, number) for column in columns])).decode
    begin_of_batch, begin_of_one = b"[" * rank, b"[" * (rank - 1)
    values = msgspec.structs.astuple

    def read(body: bytes | memoryview) -> Any:
        head = bytes(body[:_HEAD])
        if head.startswith(begin_of_batch):
            return batch_of(body)
        if head.startswith(begin_of_one):
            return (one_of(body),)
        if head.startswith(b'{"inputs"'):
            if head.find(b"{", 1) > 0:
                return named_of(body).f0.f0
            return plain_of(body).f0
        if record_of is None:
            raise msgspec.ValidationError
        return (values(record_of(body)),)

    return read


def _record(fields: Sequence[tuple[str, Any]]) -> Any:
    """A type of exactly these members; their names may be anything, so they are numbered and renamed."""
    numbered = [(f"f{number}", kind) for number, (_, kind) in enumerate(fields)]
    names = {f"f{number}": name for number, (name, _) in enumerate(fields)}
    return msgspec.defstruct("Record", numbered, rename=names, forbid_unknown_fields=True)


def _is_fixed(size: Any) -> bool:
    return isinstance(size, int) and size >= 0


def _never(_body: bytes | memoryview) -> None:
    return None
