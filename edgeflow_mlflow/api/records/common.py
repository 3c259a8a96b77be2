"""What every part of the API takes and gives: names, pages, errors."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edgeflow_agent.wire import topics

# How long a page of a list may be.
MAX_LIMIT = 500

TargetId = Annotated[str, msgspec.Meta(pattern=f"^{topics.TARGET_ID.pattern}$", max_length=63)]
Label = Annotated[str, msgspec.Meta(max_length=256)]
Labels = dict[Annotated[str, msgspec.Meta(max_length=63)], Label]
Short = Annotated[str, msgspec.Meta(max_length=256)]
Uri = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)]
Token = Annotated[str, msgspec.Meta(max_length=512)]


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request: a field that nobody knows is a typing error and is refused."""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """An answer."""

    def _repr_html_(self) -> str:
        from edgeflow_mlflow.notebook import record_html

        return record_html(self)


class PageQuery(Input, frozen=True):
    """How much of a list, and from where."""

    limit: Limit = 100
    page_token: Token = ""


class Error(Output, frozen=True):
    """MLflow's own shape, so that its clients show the message."""

    error_code: str
    message: str


class Empty(Output, frozen=True):
    """Done."""
