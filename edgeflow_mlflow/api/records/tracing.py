"""Where models come from, where data went, and what is different."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

from edgeflow_mlflow.api.records.common import Input, Limit, Output, PageQuery, Short, Token

Side = Annotated[str, msgspec.Meta(min_length=1, max_length=1100)]
Node = Annotated[str, msgspec.Meta(min_length=5, max_length=330)]


class AtQuery(Input, frozen=True):
    """When; nothing means now."""

    at: datetime | None = None


class Gap(Output, frozen=True):
    """Something that is not known, or not as it should be, and why."""

    what: str
    why: str


class DatasetView(Output, frozen=True):
    """A version of a data set. `digest` is MLflow's, of the first rows; `content` is the SHA-256 of
    everything, empty where nobody has computed it."""

    id: str
    name: str
    digest: str
    content: str
    source_type: str
    source: str


class DatasetUse(Output, frozen=True):
    """A data set that a model depends on, what for, and by which way: empty for its own run's."""

    id: str
    name: str
    digest: str
    content: str
    source_type: str
    source: str
    context: str
    way: list[str]


class DatasetList(Output, frozen=True):
    """A page of data sets, by name."""

    datasets: list[DatasetView]
    next_page_token: str = ""


class DatasetsQuery(PageQuery, frozen=True):
    """Data sets whose name, digest or SHA-256 begins with `words`."""

    words: Short = ""


class FileView(Output, frozen=True):
    """A file of a model: SHA-256 in hex, size in bytes."""

    path: str
    sha256: str
    size: int


class ModelFactsView(Output, frozen=True):
    """What was written down of a model when it was published, and stays when MLflow forgets."""

    model: str
    version: str
    digest: str
    files: list[FileView]
    baseline_sha256: str
    source: str
    published_at: datetime
    run: dict[str, Any] | None
    logged_model: dict[str, Any] | None
    datasets: list[DatasetUse]
    graph: dict[str, Any]
    environment: dict[str, str]
    gaps: list[Gap]


class ServedView(Output, frozen=True):
    """What a device served, from when to when (null: still), and the decision that brought it."""

    digest: str
    since: datetime
    until: datetime | None
    model: str
    version: str
    deployment: str
    rollout: int | None
    execution: str


class IntentView(Output, frozen=True):
    """What a device was to do: `action` is install, hold or remove."""

    action: str
    model: str
    version: str
    digest: str
    deployment: str
    rollout: int
    execution: str
    state: str
    decided_at: datetime
    decided_by: str
    reason: str


class TargetLineage(Output, frozen=True):
    """From a device back to the data: what it served at a moment, why, and where that comes from."""

    target: str
    at: datetime
    served: ServedView | None
    intended: IntentView | None
    model: ModelFactsView | None
    findings: list[Gap]


class ServedList(Output, frozen=True):
    """Everything that a device served, the newest first."""

    served: list[ServedView]


class DevicesQuery(Input, frozen=True):
    """A data set by any of these, in all experiments, and when. `any_use` also counts models that were only
    tested with it."""

    name: Annotated[str, msgspec.Meta(max_length=512)] = ""
    digest: Short = ""
    content: Short = ""
    dataset: Short = ""
    any_use: bool = False
    at: datetime | None = None
    limit: Limit = 100
    page_token: Token = ""


class ReachedVersion(Output, frozen=True):
    """A model version that was made from a data set, and by which way."""

    model: str
    version: str
    way: list[str]


class ReachedDevice(Output, frozen=True):
    """A device that serves a model made from a data set, and by which way that came to be."""

    target: str
    model: str
    version: str
    digest: str
    since: datetime
    until: datetime | None
    status: str
    way: list[str]


class DatasetReach(Output, frozen=True):
    """Where a data set went. Versions are listed whole on the first page, devices page by page."""

    at: datetime
    datasets: list[DatasetView]
    versions: list[ReachedVersion]
    devices: list[ReachedDevice]
    next_page_token: str = ""


class DiffQuery(Input, frozen=True):
    """Two sides: a target (`robot-07`), a target at a moment (`robot-07@2026-03-03T12:00:00Z`), or a model
    URI."""

    left: Side
    right: Side


class DifferenceView(Output, frozen=True):
    """One entry that differs; null where a side does not have it."""

    name: str
    left: Any
    right: Any


class SectionView(Output, frozen=True):
    """A part of the comparison: what differs, and what is the same on both sides."""

    name: str
    differences: list[DifferenceView]
    same: dict[str, Any]


class Diff(Output, frozen=True):
    """Two sides laid beside each other; sections with differences come first."""

    left: str
    right: str
    sections: list[SectionView]


class GraphQuery(Input, frozen=True):
    """Around which node: `dataset:ID`, `run:ID`, `logged:ID` or `version:NAME/NUMBER`."""

    node: Node
    limit: Limit = 200


class EdgeView(Output, frozen=True):
    """`child` was made from `parent`."""

    child: str
    parent: str
    how: str
    context: str


class GraphView(Output, frozen=True):
    """Everything above and below a node. `truncated` when there is more than was asked for."""

    node: str
    edges: list[EdgeView]
    datasets: list[DatasetView]
    truncated: bool


class RebuildView(Output, frozen=True):
    """What a rebuild has read."""

    versions: int
    bundles: int
    edges: int
    problems: list[str]
