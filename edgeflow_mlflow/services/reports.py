"""A report on the drift of a target, a fleet or a model version over any time: every statistic there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from edgeflow_agent.drift import statistics
from edgeflow_agent.drift.baseline import Baseline
from edgeflow_agent.drift.measures import Measure, Statistic
from edgeflow_agent.drift.sketch import Sketch
from edgeflow_agent.drift.verdict import Verdict, judge
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import histograms
from edgeflow_mlflow.domain.histograms import Histogram
from edgeflow_mlflow.services import baselines, judging, thresholds, watched
from edgeflow_mlflow.services.state import State
from edgeflow_mlflow.services.watched import Whose

# More say nothing new. They are taken evenly from all of the time.
MOST_WINDOWS = 2000

_Window = models.Window


@dataclass(frozen=True, kw_only=True)
class FeatureReport:
    """One feature: what it was and is, and how far these are apart."""

    name: str
    kind: str
    n: int
    missing: int
    verdict: Verdict
    measures: dict[Statistic, Measure]
    histogram: Histogram


@dataclass(frozen=True, kw_only=True)
class Report:
    """All features. `windows` were there, `used` of them were looked at, and `refused` did not fit."""

    model: str
    version: str
    digest: str
    baseline: str
    is_learned: bool
    windows: int
    used: int
    refused: int
    targets: int
    features: Sequence[FeatureReport]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Which model, and counted against which baseline, the report is on."""

    model: str
    version: str
    digest: str
    baseline: str
    is_learned: bool
    windows: int

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """Its windows."""
        return [
            _Window.model_name == self.model,
            _Window.model_version == self.version,
            _Window.digest == self.digest,
            _Window.baseline_sha256 == self.baseline,
            _Window.payload.is_not(None),
        ]


def subject(session: Session, whose: Whose, start: datetime, end: datetime) -> Subject:
    """The model and baseline of the newest window of that time; NotFoundError when there is none."""
    names = (
        _Window.model_name,
        _Window.model_version,
        _Window.digest,
        _Window.baseline_sha256,
        _Window.is_learned,
    )
    row = session.execute(
        select(*names, func.count())
        .where(*watched.windows(session, whose), *_during(start, end), _Window.payload.is_not(None))
        .group_by(*names)
        .order_by(func.max(_Window.end_at).desc())
        .limit(1)
    ).first()
    if row is None:
        raise errors.NotFoundError(
            "no window with features has ended in that time: look at a longer one, or see in `edgeflow "
            "telemetry` whether windows come at all"
        )
    return Subject(
        model=row[0], version=row[1], digest=row[2], baseline=row[3], is_learned=row[4], windows=row[5]
    )


def report(state: State, whose: Whose, of: Subject, start: datetime, end: datetime) -> Report:
    """The report on these windows. Raise ConflictError when their baseline is not here."""
    with state.database.read() as session:
        baseline = baselines.find(state, session, of.baseline)
        if baseline is None:
            raise errors.ConflictError(
                f"this server does not have the baseline {of.baseline} that the windows were counted against"
            )
        usual = thresholds.of(session, of.model, of.version)
        where = (*watched.windows(session, whose), *_during(start, end), *of.conditions, _every(of.windows))
        rows = session.execute(judging.columns().where(*where).order_by(_Window.target_id))
        targets = set(session.scalars(select(_Window.target_id).where(*where).distinct()))
        found = judging.pooled(baseline, rows, {"": targets})
    kinds = _kinds(baseline)
    sketches = {name: total.sketch(0) for name, total in found.stacks[""].items()}
    used = sum(len(windows) for windows in found.windows.values())
    return Report(
        model=of.model,
        version=of.version,
        digest=of.digest,
        baseline=of.baseline,
        is_learned=of.is_learned,
        windows=of.windows,
        used=used,
        refused=found.refused,
        targets=len(targets),
        features=[
            _feature(kinds, sketches[name], judge(sketches[name], usual))
            for name in kinds
            if name in sketches
        ],
    )


def _feature(kinds: dict[str, str], sketch: Sketch, verdict: Verdict) -> FeatureReport:
    name = sketch.feature.name
    return FeatureReport(
        name=name,
        kind=kinds[name],
        n=sketch.n,
        missing=sketch.missing,
        verdict=verdict,
        measures=statistics.measure(sketch),
        histogram=histograms.of(sketch),
    )


def _kinds(baseline: Baseline) -> dict[str, str]:
    return dict.fromkeys((feature.name for feature in baseline.inputs), "input") | dict.fromkeys(
        (feature.name for feature in baseline.outputs), "output"
    )


def _during(start: datetime, end: datetime) -> list[ColumnElement[bool]]:
    return [_Window.end_at >= start, _Window.end_at < end]


def _every(windows: int) -> Any:
    return _Window.id % -(-windows // MOST_WINDOWS) == 0
