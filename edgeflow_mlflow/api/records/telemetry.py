"""Telemetry and drift: what devices have counted, and how far it is from training."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from edgeflow_mlflow.api.records.common import Input, Output, PageQuery, Short

_Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
_Least = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class BaselineKept(Output, frozen=True):
    """The baseline's name: the SHA-256 of the file."""

    sha256: str


class TelemetryQuery(Input, frozen=True):
    """Whose, from when to when (the last hour by default), and in steps of how many seconds (0: as fits)."""

    target: Short = ""
    fleet: Short = ""
    deployment: Short = ""
    model: Short = ""
    version: Short = ""
    start: datetime | None = msgspec.field(default=None, name="from")
    end: datetime | None = msgspec.field(default=None, name="to")
    step: Annotated[int, msgspec.Meta(ge=0, le=31 * 86400)] = 0


class TelemetryPoint(Output, frozen=True):
    """What all windows have counted that ended in the step from `at` on. `requests` by how they ended in
    `outcomes`; `throughput` in requests a second, latencies in seconds; `dropped` windows were lost by the
    devices so far. What cannot be computed of nothing is null."""

    at: datetime
    windows: int
    targets: int
    requests: int
    failed: int
    error_rate: float | None
    throughput: float
    latency_mean_s: float | None
    latency_p50_s: float | None
    latency_p95_s: float | None
    latency_p99_s: float | None
    outcomes: dict[str, int]
    observed: int
    unobserved: int
    swaps: int
    dropped: int
    resources: dict[str, float]


class TelemetryView(Output, frozen=True):
    """Points in order; a step in which no window ended has none."""

    start: datetime = msgspec.field(name="from")
    end: datetime = msgspec.field(name="to")
    step_s: int
    points: list[TelemetryPoint]


class RefusalQuery(PageQuery, frozen=True):
    """Of which target."""

    target: Short = ""


class RefusalView(Output, frozen=True):
    """How often something of a target was refused for one reason; `text` is the newest."""

    target: str
    reason: str
    count: int
    text: str
    first_at: datetime
    last_at: datetime


class RefusalList(Output, frozen=True):
    """A page of refusals."""

    refusals: list[RefusalView]
    next_page_token: str = ""


class SignalView(Output, frozen=True):
    """One statistic: from which threshold on it drifts at this number of values, and in words what was
    seen."""

    statistic: str
    value: float | None
    threshold: float | None
    status: str
    text: str
    approx: bool = False
    p_value: float | None = None


class Evaluation(Output, frozen=True):
    """One entry of the history of a feature."""

    at: str
    n: int
    status: str
    p_value: float | None
    significant: bool


class DriftQuery(PageQuery, frozen=True):
    """Which verdicts: of a target, a fleet or a model (version), of one scope or status, or alarms only."""

    scope: Literal["", "target", "fleet", "model"] = ""
    target: Short = ""
    fleet: Short = ""
    model: Short = ""
    version: Short = ""
    status: Literal["", "ok", "drift", "insufficient_data"] = ""
    alarms: bool = False


class DriftView(Output, frozen=True):
    """The newest verdict on one feature. `name` is the target or fleet, empty for a whole model version."""

    scope: str
    name: str
    model: str
    version: str
    digest: str
    baseline: str
    feature: str
    kind: str
    status: str
    significant: bool
    alarm: bool
    evaluations: int
    p_value: float | None
    n: int
    signals: list[SignalView]
    history: list[Evaluation]
    start: datetime = msgspec.field(name="from")
    end: datetime = msgspec.field(name="to")
    updated_at: datetime


class DriftList(Output, frozen=True):
    """A page of verdicts, alarms and the newest first."""

    verdicts: list[DriftView]
    next_page_token: str = ""


class ReportQuery(Input, frozen=True):
    """On a target, a fleet or a model version, from when to when (the last hour by default)."""

    target: Short = ""
    fleet: Short = ""
    model: Short = ""
    version: Short = ""
    start: datetime | None = msgspec.field(default=None, name="from")
    end: datetime | None = msgspec.field(default=None, name="to")


class MeasureView(Output, frozen=True):
    """A statistic; `approx` when the samples themselves could give a slightly different one."""

    value: float | None
    approx: bool


class HistogramView(Output, frozen=True):
    """Shares of the baseline and of the live values between `edges`, or of the values in `labels`."""

    edges: list[float]
    labels: list[str]
    baseline: list[float]
    live: list[float]


class FeatureReport(Output, frozen=True):
    """One feature over the whole time."""

    feature: str
    kind: str
    n: int
    missing: int
    status: str
    p_value: float | None
    signals: list[SignalView]
    statistics: dict[str, MeasureView]
    histogram: HistogramView


class DriftReport(Output, frozen=True):
    """All features. Of `windows` that there are, `used` were looked at, evenly taken, and `refused` of those
    did not fit the baseline, which the device has `is_learned` itself."""

    start: datetime = msgspec.field(name="from")
    end: datetime = msgspec.field(name="to")
    model: str
    version: str
    digest: str
    baseline: str
    is_learned: bool
    targets: int
    windows: int
    used: int
    refused: int
    features: list[FeatureReport]


class ThresholdsChange(Input, frozen=True):
    """What is to be other than usual, in place of what was set before. A limit of null is not judged."""

    limits: dict[Annotated[str, msgspec.Meta(max_length=64)], float | None] = {}
    min_samples: _Least | msgspec.UnsetType = msgspec.UNSET
    min_reference: _Least | msgspec.UnsetType = msgspec.UNSET
    chance: _Share | msgspec.UnsetType = msgspec.UNSET


class ThresholdsView(Output, frozen=True):
    """What a model version is judged by; `is_usual` when nothing was set."""

    limits: dict[str, float]
    min_samples: int
    min_reference: int
    chance: float
    is_usual: bool
