"""The identity of a data set changes with every value and with nothing else."""

from __future__ import annotations

import decimal
import hashlib
import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_mlflow import errors
from edgeflow_mlflow.dataset_identity import content_sha256

_COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "whole": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "number": (pa.float64(), st.floats()),
    "word": (pa.string(), st.text(max_size=5)),
    "raw": (pa.binary(), st.binary(max_size=5)),
    "flag": (pa.bool_(), st.booleans()),
    "when": (pa.timestamp("us", tz="UTC"), st.datetimes(timezones=st.just(UTC))),
    "day": (pa.date32(), st.dates()),
    "long": (
        pa.duration("us"),
        st.timedeltas(max_value=timedelta(days=9999), min_value=timedelta(days=-9999)),
    ),
    "price": (pa.decimal128(9, 2), st.integers(-(10**6), 10**6).map(lambda n: decimal.Decimal(n) / 100)),
    "list": (pa.list_(pa.string()), st.lists(st.none() | st.text(max_size=3), max_size=3)),
    "deep": (
        pa.struct([("a", pa.list_(pa.int8())), ("b", pa.float32())]),
        st.fixed_dictionaries(
            {"a": st.lists(st.integers(-128, 127), max_size=3), "b": st.none() | st.floats(width=32)}
        ),
    ),
}


@st.composite
def tables(draw: Any) -> pa.Table:
    rows = draw(st.integers(1, 12))
    names = draw(st.lists(st.sampled_from(sorted(_COLUMNS)), min_size=1, max_size=4, unique=True))
    return pa.table(
        {
            name: pa.array(
                draw(st.lists(st.none() | _COLUMNS[name][1], min_size=rows, max_size=rows)), _COLUMNS[name][0]
            )
            for name in names
        }
    )


@given(tables(), st.data())
def test_chunks_do_not_matter(table: pa.Table, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, table.num_rows))
    parts = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    assert content_sha256(parts) == content_sha256(table)
    assert content_sha256(table.combine_chunks().to_batches()[0]) == content_sha256(table)


@given(tables(), st.data())
def test_every_value_matters(table: pa.Table, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(table.column_names))
    row = data.draw(st.integers(0, table.num_rows - 1))
    kind, values = _COLUMNS[name]
    column = table.column(name).to_pylist()
    other = data.draw(st.none() | values)
    new = pa.array([*column[:row], other, *column[row + 1 :]], kind)
    changed = table.set_column(table.column_names.index(name), name, new)
    before, after = table.column(name)[row].as_py(), new[row].as_py()
    if kind == pa.float64():
        before, after = (math.nan if value is None else value for value in (before, after))
    is_same = repr(_plain(before)) == repr(_plain(after))
    assert (content_sha256(changed) == content_sha256(table)) == is_same


def _plain(value: Any) -> Any:
    """What counts as the same: a missing number is no number."""
    if isinstance(value, dict):
        return {key: math.nan if key == "b" and item is None else item for key, item in value.items()}
    return value


def test_pandas_and_arrow_agree() -> None:
    frame = pd.DataFrame(
        {
            "x": [1.5, math.nan, -0.0],
            "n": np.array([1, 2, 3], "int64"),
            "word": ["a", None, "ü"],
            "kind": pd.Categorical(["u", "v", "u"]),
            "when": pd.to_datetime(["2026-01-01", "2026-01-02", None]),
        },
        index=[7, 8, 9],
    )
    table = pa.table(
        {
            "x": pa.array([1.5, None, -0.0]),
            "n": pa.array([1, 2, 3], pa.int64()),
            "word": pa.array(["a", None, "ü"], pa.large_string()),
            "kind": pa.array(["u", "v", "u"]).dictionary_encode(),
            "when": pa.array([datetime(2026, 1, 1), datetime(2026, 1, 2), None], pa.timestamp("ms")),  # noqa: DTZ001
        }
    )
    assert content_sha256(frame) == content_sha256(table)
    assert content_sha256(frame.reset_index(drop=True)) == content_sha256(frame)


def test_row_10001_counts_where_mlflow_does_not_look() -> None:
    import mlflow.data

    frame = pd.DataFrame({"x": np.arange(20_000.0)})
    changed = frame.copy()
    changed.loc[10_000, "x"] = -1
    assert mlflow.data.from_pandas(frame).digest == mlflow.data.from_pandas(changed).digest
    assert content_sha256(frame) != content_sha256(changed)


def test_names_order_and_width_count() -> None:
    table = pa.table({"a": pa.array([1, 2]), "b": pa.array([3, 4])})
    others = [
        table.rename_columns(["a", "c"]),
        table.select(["b", "a"]),
        table.set_column(0, "a", pa.array([1, 2], pa.int32())),
        table.slice(0, 1),
        pa.table({"a": pa.array([1]), "b": pa.array([3])}),
    ]
    digests = [content_sha256(item) for item in (table, *others)]
    assert len(set(digests)) == len(digests) - 1  # the last two are the same table


def test_arrays() -> None:
    array = np.arange(12, dtype="<f4").reshape(3, 4)
    assert (
        content_sha256(array)
        == content_sha256(array.astype(">f4"))
        == content_sha256(np.asfortranarray(array))
    )
    assert content_sha256(array) != content_sha256(array.reshape(4, 3))
    assert content_sha256(array) != content_sha256(array.astype("f8"))
    assert content_sha256(np.array(["a", "bb"])) == content_sha256(np.array(["a", "bb"], "U9"))
    assert content_sha256(np.array(["ab", "c"])) != content_sha256(np.array(["a", "bc"]))
    assert content_sha256({"x": array, "y": array}) != content_sha256({"x": array})
    assert content_sha256(np.array([np.nan])) == content_sha256(np.array([-np.nan]))


def test_files_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.csv").write_text("x\n1\n")
    (folder / "deep" / "b.csv").write_text("x\n2\n")
    first = content_sha256(folder)
    assert content_sha256(str(folder / "a.csv")) == hashlib.sha256(b"x\n1\n").hexdigest()
    (folder / "deep" / "b.csv").rename(folder / "b.csv")
    assert content_sha256(folder) != first
    (folder / "b.csv").rename(folder / "deep" / "b.csv")
    assert content_sha256(folder) == first


@pytest.mark.parametrize(
    "odd", [object(), 7, "/nowhere/at/all", pd.DataFrame({"x": [1, "a"]}), np.zeros(2, "V8")]
)
def test_what_has_no_identity_is_refused(odd: object) -> None:
    with pytest.raises(errors.InvalidError):
        content_sha256(odd)


def test_the_format_never_changes() -> None:
    """These are written down wherever somebody logged a data set."""
    table = pa.table({"x": [1.0, None], "n": [1, 2], "w": ["a", None], "d": [date(2026, 1, 1), None]})
    assert content_sha256(table) == "1900282cb041ecdd82f653fc2e5b4ef0273252b049cdcd37df7c067129bc9f44"
    assert (
        content_sha256(np.arange(4, dtype="f4"))
        == "7faf7d2e52a16ce75b36bec0fb6bc9dc196daf240dc45c0082c8624b99ea1ee4"
    )
