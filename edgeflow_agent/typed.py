"""Reading typed records, safe from the first one on.

msgspec works out what a record looks like when that record is first read. A second thread that reads the same
kind meanwhile sees half of it, and the process dies of a segmentation fault (0.22.0). So the first reading of
each kind is prepared here, one at a time, and nobody else reads typed data by msgspec's own functions.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")

_prepared: set[Any] = set()
_one_at_a_time = threading.Lock()


@overload
def read(kind: type[T], data: bytes | str) -> T: ...
@overload
def read(kind: Any, data: bytes | str) -> Any: ...
def read(kind: Any, data: bytes | str) -> Any:
    """A value of `kind` from JSON; raises what msgspec raises."""
    prepare(kind)
    return msgspec.json.decode(data, type=kind)


@overload
def convert(kind: type[T], value: Any, *, strict: bool = ...) -> T: ...
@overload
def convert(kind: Any, value: Any, *, strict: bool = ...) -> Any: ...
def convert(kind: Any, value: Any, *, strict: bool = True) -> Any:
    """A value of `kind` from plain data; raises what msgspec raises."""
    prepare(kind)
    return msgspec.convert(value, type=kind, strict=strict)


def prepare(kind: Any) -> None:
    """Have msgspec work out a kind, and all that it is made of, if it has not yet."""
    if kind in _prepared:
        return
    with _one_at_a_time:
        if kind not in _prepared:
            msgspec.json.Decoder(kind)
            _prepared.add(kind)
