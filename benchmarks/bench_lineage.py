"""The three questions of lineage, a recall plan and the list of targets on a large synthetic fleet.

    .venv/bin/python benchmarks/bench_lineage.py [--targets 100000] [--executions 1000000]

Makes the tables on SQLite and, where it is installed, on PostgreSQL, asks each question many times through
the API's own handlers, and prints medians and 99th percentiles in milliseconds. Goals: each question and the
list of targets under 50 ms, a plan over 20,000 devices under 2 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import select
from synthetic_fleet import BEGIN, SITES, Fleet, fill

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgeflow_mlflow import config
from edgeflow_mlflow.api import recalls, records, targets, tracing
from edgeflow_mlflow.api.routing import Actor, Call
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import opening
from edgeflow_mlflow.services.state import State
from tests import harness


def call(state: State, *, body: Any = None, query: Any = None, **path: str) -> Call:
    versions: Any = lambda *args, **words: []  # noqa: E731 - MLflow itself is not measured
    return Call(
        state=state,
        catalog=SimpleNamespace(registry=lambda: SimpleNamespace(search_model_versions=versions)),  # type: ignore[arg-type]
        sees_experiment=lambda identifier: True,
        sees_model=lambda name: True,
        actor=Actor(),
        prefix="",
        path=path,
        query=query,
        body=body,
    )


def questions(state: State, fleet: Fleet) -> dict[str, Callable[[], Any]]:
    """Each asks about something else every time."""
    chance = fleet.chance
    turns = fleet.args.executions // fleet.args.targets

    def robot() -> str:
        return f"robot-{chance.randrange(fleet.args.targets):06}"

    def past() -> datetime:
        return BEGIN + timedelta(days=chance.random() * turns)

    def reach(number: int, at: datetime | None) -> Any:
        query = records.DevicesQuery(content=fleet.datasets[number][2], at=at)
        return tracing.devices(call(state, query=query))

    return {
        "which run produced the model on a device": lambda: tracing.of_target(
            call(state, query=records.AtQuery(), target_id=robot())
        ),
        "which run, at a moment": lambda: tracing.of_target(
            call(state, query=records.AtQuery(at=past()), target_id=robot())
        ),
        "which devices run a model of a data set": lambda: reach(
            chance.randrange(1, len(fleet.datasets)), None
        ),
        "which devices, at a moment": lambda: reach(chance.randrange(1, len(fleet.datasets)), past()),
        "of a data set behind much of the fleet": lambda: reach(fleet.shared, None),
        "what changed between two devices": lambda: tracing.diff(
            call(state, query=records.DiffQuery(left=robot(), right=robot()))
        ),
        "a page of targets by labels": lambda: targets.listing(
            call(
                state, query=records.TargetQuery(selector=f"site=s{chance.randrange(SITES):03},ring!=canary")
            )
        ),
    }


def measure(ask: Callable[[], Any], times: int) -> tuple[float, float]:
    for _ in range(5):
        ask()
    took = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took), statistics.quantiles(took, n=100)[98]


def ask_everything(state: State, fleet: Fleet) -> None:
    results: dict[str, dict[str, float]] = {}
    for what, ask in questions(state, fleet).items():
        median, worst = measure(ask, fleet.args.times)
        results[what] = {"median_ms": round(median, 2), "p99_ms": round(worst, 2)}
        print(f"{what:<48} median {median:7.2f} ms   p99 {worst:7.2f} ms")
    body = records.RecallPlanRequest(content=fleet.datasets[fleet.shared][2])
    began = time.perf_counter()
    plan = recalls.plan(call(state, body=body))
    took = time.perf_counter() - began
    print(f"a recall plan over {len(plan.devices)} devices: {took:.2f} s")
    results["plan"] = {"devices": len(plan.devices), "seconds": round(took, 2)}
    print(json.dumps(results))


def on(url: str, folder: Path, args: argparse.Namespace) -> None:
    """Make the tables where they are not, and ask."""
    flags = {"server.data_dir": str(folder / "data"), "server.database_url": url}
    state = opening.open_state(opening.resolve(config.load(environment={}, flags=flags), None))
    fleet = Fleet(args)
    print(f"== {state.database.url.get_backend_name()}")
    with state.database.read() as session:
        is_new = session.scalars(select(models.Target.id).limit(1)).first() is None
    if is_new:
        began = time.perf_counter()
        fill(state, fleet)
        took = time.perf_counter() - began
        print(f"{args.targets} targets and {args.executions} executions made in {took:.0f} s")
    ask_everything(state, fleet)
    state.database.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", type=int, default=100_000)
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--datasets", type=int, default=5000)
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=300)
    parser.add_argument("--folder", default="", help="Keep SQLite's tables here, and use them again.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeflow-lineage-") as name:
        folder = Path(args.folder or name)
        on(f"sqlite:///{folder}/edgeflow.db", folder, args)
        with harness.postgres() as url:
            if url is None:
                print("PostgreSQL is not installed: left out")
                return
            on(harness.new_database(url, "lineage"), Path(name) / "postgresql", args)


if __name__ == "__main__":
    main()
