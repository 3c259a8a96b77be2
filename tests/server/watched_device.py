"""A device that is watched: it was given a model with a baseline, and sends windows of what it saw."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeflow_agent.drift import baseline_file, build, record, sketch
from edgeflow_agent.drift.baseline import Baseline
from edgeflow_agent.drift.features import Described
from edgeflow_agent.wire import documents, telemetry
from edgeflow_agent.wire.telemetry import Latency, Requests, TelemetryWindow
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import deploy, revisions
from edgeflow_mlflow.services.state import State
from tests.server.conftest import add_bundle, add_target

# For what no database does differently.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
FEATURES = ("width", "length", "colour")
RNG = np.random.default_rng(11)


def values(n: int, shift: float = 0.0, features: Sequence[str] = FEATURES) -> dict[str, Any]:
    """What a device sees; with a shift, in standard deviations of every number."""
    return {
        name: RNG.choice(["red", "green", "blue"], size=n)
        if name == "colour"
        else RNG.normal(10 + 2 * shift, 2, size=n)
        for name in features
    }


def baseline_content(features: Sequence[str] = FEATURES, n: int = 5000) -> bytes:
    """The file of a baseline of these features."""
    return build.encode(build.build([Described(name, seen) for name, seen in values(n, 0, features).items()]))


class Watched:
    """One device. `window` makes the next one; `sent` packs it."""

    def __init__(self, state: State, name: str, bundle: models.Bundle, baseline: Baseline) -> None:
        self.state = state
        self.name = name
        self.bundle = bundle
        self.baseline = baseline
        self._seq = itertools.count(1)

    def window(self, seen: dict[str, Any] | None = None, **changes: Any) -> TelemetryWindow:
        """A window that ends now, in which these values were seen."""
        features = []
        n = 0
        for feature in self.baseline.features:
            if seen is None or feature.name not in seen:
                continue
            made = sketch.empty(feature)
            made.fold(seen[feature.name])
            features.append(record.to_record(made))
            n = len(seen[feature.name])
        now: datetime = self.state.now()
        latency = [0] * (len(telemetry.LATENCY_BUCKETS) + 1)
        latency[3] = max(n, 10)
        made_of: dict[str, Any] = {
            "boot": "boot-1",
            "seq": next(self._seq),
            "start": now - timedelta(seconds=60),
            "end": now,
            "seconds": 60.0,
            "digest": self.bundle.digest,
            "model": "whatever it says",
            "version": "7",
            "requests": Requests(ok=max(n, 10)),
            "latency": Latency(counts=tuple(latency), sum_s=0.002 * max(n, 10)),
            "baseline": self.bundle.baseline_sha256,
            "observed": n,
            "features": tuple(features),
        }
        return TelemetryWindow(**(made_of | changes))

    def sent(self, seen: dict[str, Any] | None = None, **changes: Any) -> bytes:
        """The window's bytes."""
        return telemetry.pack(self.window(seen, **changes))


def fleet(
    state: State,
    folder: Path,
    *names: str,
    features: Sequence[str] = FEATURES,
    labels: dict[str, str] | None = None,
) -> list[Watched]:
    """Devices that were given the same model, with a baseline, and say that they serve it."""
    content = baseline_content(features)
    path = folder / "baseline.json"
    path.write_bytes(content)
    sha256, size = state.blobs.add(path)
    bundle = add_bundle(state)
    files = [documents.from_builtins(documents.FileRef, item) for item in bundle.files]
    files.append(documents.FileRef(path="baseline.json", sha256=sha256, size=size))
    bundle.files = [documents.to_builtins(item) for item in files]
    bundle.digest = documents.bundle_digest(files)
    bundle.baseline_sha256 = sha256
    with state.database.write() as session:
        session.merge(bundle)
    for name in names:
        add_target(state, name, **(labels or {}))
    deploy.create(
        state,
        "iris",
        where=deploy.Where(targets=names),
        what=revisions.What(bundle_id=bundle.id, model_uri="models:/iris/1"),
        actor="me",
    )
    with state.database.write() as session:
        for name in names:
            session.get_one(models.Target, name).actual_digest = bundle.digest
    baseline = baseline_file.parse(content)
    return [Watched(state, name, bundle, baseline) for name in names]


def hostile(window: TelemetryWindow, place: int = 0, **changes: Any) -> TelemetryWindow:
    """The window with one of its features changed."""
    features = list(window.features)
    features[place] = msgspec.structs.replace(features[place], **changes)
    return msgspec.structs.replace(window, features=tuple(features))
