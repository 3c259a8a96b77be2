"""The identity of a data set: a SHA-256 over all of its content.

MLflow's own digest sees the first 10,000 rows and keeps eight characters. This one changes with any value of
any row. It does not depend on how the same values are held: a table in pandas and the same table in Arrow
have the same identity, and so has a table in one batch or in many. What counts: the names of the columns and
their order, the kind and width of their values, and every value, missing ones too (a missing float and a NaN
are the same). What does not count: the index of a data frame, metadata, categories against plain words.

The format is part of the identity (`v1`): it never changes, a better one would be another version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeflow_mlflow import errors

_CHUNK = 2**20
_ROWS = 2**16
_EPOCH_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def content_sha256(data: Any) -> str:
    """The identity of a file or folder (a path), a pandas or Arrow table, a NumPy array, or a dict of arrays;
    64 hex characters. Raise InvalidError for anything else."""
    if isinstance(data, str | Path):
        return of_path(Path(data))
    if isinstance(data, np.ndarray):
        return _hex("array", [_of_array(data)])
    if isinstance(data, Mapping):
        return _of_mapping(data)
    kind = type(data).__module__.partition(".")[0]
    if kind == "pandas":
        return _of_table(_from_pandas(data))
    if kind == "pyarrow":
        return _of_table(data)
    raise errors.InvalidError(
        f"the content of a {type(data).__name__} has no identity: give a path, a pandas or Arrow table, or "
        "NumPy arrays"
    )


def of_path(path: Path) -> str:
    """The identity of a file (its SHA-256), or of a folder: every file in it by its name, hidden ones too.
    Links to files are followed, links to folders are refused."""
    if path.is_file():
        return str(_of_file(path).hexdigest())
    if not path.is_dir():
        raise errors.InvalidError(f"{path} is neither a file nor a folder")
    entries = []
    for item in sorted(path.rglob("*")):
        if item.is_dir():
            if item.is_symlink():
                raise errors.InvalidError(f"{item} is a link to a folder: its content has no clear identity")
            continue
        entries.append([item.relative_to(path).as_posix(), _of_file(item).hexdigest()])
    if not entries:
        raise errors.InvalidError(f"the folder {path} holds no file")
    return _hex("folder", [json.dumps(sorted(entries), ensure_ascii=False).encode()])


def _of_file(path: Path) -> Any:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def _hex(kind: str, parts: list[bytes]) -> str:
    total = hashlib.sha256(f"edgeflow dataset v1 {kind}\n".encode())
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()


# ---- arrays


def _of_mapping(data: Mapping[Any, Any]) -> str:
    parts = []
    for name in sorted(data, key=str):
        value = np.asarray(data[name])
        parts += [str(name).encode(), _of_array(value)]
    return _hex("arrays", parts)


def _of_array(value: np.ndarray[Any, Any]) -> bytes:
    if value.dtype.kind in "OUST":  # words, however wide their field is
        words = hashlib.sha256(json.dumps(["words", list(value.shape)]).encode())
        for item in value.reshape(-1):
            text = str(item).encode()
            words.update(len(text).to_bytes(8, "little") + text)
        return words.digest()
    if value.dtype.kind not in "biufcMm":
        raise errors.InvalidError(f"an array of {value.dtype} has no identity: give numbers, words or times")
    little = value.dtype.newbyteorder("<")
    total = hashlib.sha256(json.dumps([little.str, list(value.shape)]).encode())
    flat = value.reshape(-1)
    for start in range(0, flat.size, _ROWS):
        total.update(_one_nan(flat[start : start + _ROWS]).astype(little, copy=False).tobytes())
    return total.digest()


def _one_nan(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """There are many bit patterns that are no number; they mean the same."""
    if values.dtype.kind == "f" and np.isnan(values).any():
        values = values.copy()
        values[np.isnan(values)] = np.nan
    return values


# ---- tables


def _from_pandas(data: Any) -> Any:
    import pyarrow as pa

    frame = data.to_frame() if hasattr(data, "to_frame") and not hasattr(data, "columns") else data
    if len({str(name) for name in frame.columns}) != len(frame.columns):
        raise errors.InvalidError("the table has two columns of the same name")
    columns, names = [], []
    for name in frame.columns:
        names.append(str(name))
        try:
            columns.append(pa.array(frame[name], from_pandas=True))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise errors.InvalidError(
                f"column {str(name)!r} holds values of several kinds, which have no identity: {error}"
            ) from error
    # A column of a large frame may come in chunks.
    return pa.table(columns, names=names)


def _of_table(data: Any) -> str:
    parts: list[bytes] = []
    for name, column in _columns(data):
        parts += [name.encode(), _of_column(column)]
    return _hex("table", parts)


def _columns(data: Any) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa

    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if not isinstance(data, pa.Table):
        raise errors.InvalidError(f"a pyarrow.{type(data).__name__} has no identity: give a Table")
    if len(set(data.column_names)) != data.num_columns:
        raise errors.InvalidError("the table has two columns of the same name")
    for name in data.column_names:
        yield name, data.column(name)


def _of_column(column: Any) -> bytes:
    streams = _Streams()
    for chunk in column.chunks:
        for start in range(0, len(chunk), _ROWS):
            streams.add(chunk.slice(start, _ROWS))
    head = json.dumps([_kind(column.type), len(column)]).encode()
    return hashlib.sha256(head + streams.digest()).digest()


def _kind(of: Any) -> str:
    import pyarrow.types as types

    if types.is_dictionary(of):
        return _kind(of.value_type)
    if types.is_string(of) or types.is_large_string(of) or types.is_string_view(of):
        return "words"
    if types.is_binary(of) or types.is_large_binary(of) or types.is_fixed_size_binary(of):
        return "bytes"
    if types.is_timestamp(of):
        return f"moment {of.tz or ''}"
    if types.is_duration(of):
        return "duration"
    if types.is_list(of) or types.is_large_list(of) or types.is_fixed_size_list(of):
        return f"list of {_kind(of.value_type)}"
    if types.is_struct(of):
        return "{" + ", ".join(f"{field.name}: {_kind(field.type)}" for field in of) + "}"
    if types.is_primitive(of) or types.is_decimal(of) or types.is_null(of):
        return str(of)
    raise errors.InvalidError(f"a column of {of} has no identity: turn it into numbers, words or times")


class _Streams:
    """What is missing, what the values are and how long they are: each in a stream of its own, on each level
    of a nested column, so that chunks do not matter."""

    def __init__(self) -> None:
        self._missing, self._values, self._lengths = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._inner: list[_Streams] = []

    def digest(self) -> bytes:
        inner = b"".join(item.digest() for item in self._inner)
        return hashlib.sha256(
            self._missing.digest() + self._values.digest() + self._lengths.digest() + inner
        ).digest()

    def add(self, values: Any) -> None:
        import pyarrow.compute as pc
        import pyarrow.types as types

        if types.is_dictionary(values.type):
            values = values.dictionary_decode()
        of = values.type
        if types.is_null(of):
            return  # how many there are is said already
        if types.is_floating(of):  # a missing number is no number
            self._numbers(_one_nan(values.to_numpy(zero_copy_only=False)))
            return
        self._missing.update(values.is_null().to_numpy(zero_copy_only=False).astype(np.uint8).tobytes())
        if types.is_struct(of):
            for index in range(of.num_fields):
                self._level(index).add(pc.struct_field(values, index))
        elif types.is_list(of) or types.is_large_list(of) or types.is_fixed_size_list(of):
            self._sizes(pc.list_value_length(values))
            self._level(0).add(values.flatten())
        else:
            self._plain(values)

    def _level(self, index: int) -> _Streams:
        while len(self._inner) <= index:
            self._inner.append(_Streams())
        return self._inner[index]

    def _plain(self, values: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.types as types

        of = values.type
        if _kind(of) in ("words", "bytes"):
            known = values.cast(pa.large_binary()).fill_null(b"")
            self._sizes(pc.binary_length(known))
            self._values.update(b"".join(known.to_pylist()))
        elif types.is_timestamp(of) or types.is_duration(of):
            ticks = _filled(values.cast(pa.int64()))
            per_second = _EPOCH_UNITS[of.unit]
            seconds = np.floor_divide(ticks, per_second)
            rest = (ticks - seconds * per_second) * (10**9 // per_second)
            self._numbers(np.stack([seconds, rest], axis=1))
        elif types.is_decimal(of):
            words = (str(item) for item in values.to_pylist() if item is not None)
            self._values.update("".join(f"{word}\n" for word in words).encode())
        elif types.is_boolean(of):
            self._numbers(_filled(values.cast(pa.uint8())))
        elif types.is_temporal(of):
            self._numbers(_filled(values.view(pa.int32() if of.bit_width == 32 else pa.int64())))
        else:
            self._numbers(_filled(values))

    def _sizes(self, found: Any) -> None:
        self._lengths.update(_filled(found).astype("<i8").tobytes())

    def _numbers(self, found: np.ndarray[Any, Any]) -> None:
        self._values.update(found.astype(found.dtype.newbyteorder("<"), copy=False).tobytes())


def _filled(values: Any) -> np.ndarray[Any, Any]:
    return np.asarray(values.fill_null(0).to_numpy(zero_copy_only=False))
