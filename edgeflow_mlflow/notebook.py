"""How answers show themselves in a notebook: lists as tables, one record as its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
_MOST_ROWS = 200
_MOST_WORDS = 300


class Rows(list[T]):
    """A list that a notebook shows as a table."""

    def to_pandas(self) -> Any:
        """A data frame with one row for each; what is nested stays as it is."""
        import pandas as pd

        return pd.DataFrame([_plain(item) for item in self])

    def _repr_html_(self) -> str:
        plain = [_plain(item) for item in self[:_MOST_ROWS]]
        columns = list(dict.fromkeys(key for row in plain for key in row))
        more = f"<p>… and {len(self) - _MOST_ROWS} more</p>" if len(self) > _MOST_ROWS else ""
        return _table(columns, [[_words(row.get(name)) for name in columns] for row in plain]) + more


def record_html(record: msgspec.Struct) -> str:
    """The fields of one record, a line each."""
    return _table((), [[name, _words(value)] for name, value in _plain(record).items()])


def _plain(item: Any) -> dict[str, Any]:
    if isinstance(item, msgspec.Struct):
        return {name: getattr(item, name) for name in item.__struct_fields__}
    return dict(item) if isinstance(item, Mapping) else {"value": item}


def _words(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S %Z}"
    is_nested = isinstance(value, msgspec.Struct | Sequence | Mapping) and not isinstance(value, str)
    text = msgspec.json.encode(value).decode() if is_nested else "" if value is None else str(value)
    return text if len(text) <= _MOST_WORDS else f"{text[:_MOST_WORDS]}…"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
