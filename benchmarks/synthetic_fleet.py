"""A large synthetic fleet with a past, written straight into the tables, to ask lineage about."""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, text

from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import lineage
from edgeflow_mlflow.services.state import State

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SITES = 200
BATCH = 20_000


def sha(*words: object) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()


class Fleet:
    """What the generator makes, and what is asked about it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.chance = random.Random(7)
        self.models = [f"model-{number:02}" for number in range(20)]
        self.versions = [(self.models[number % 20], str(number // 20 + 1)) for number in range(args.versions)]
        self.datasets = [
            (f"data-{number % 500:03}", sha("digest", number)[:8], sha("content", number))
            for number in range(args.datasets)
        ]
        self.dataset_ids = [lineage.dataset_id(*item) for item in self.datasets]
        # Most data sets belong to one version; one is behind much of the fleet.
        self.shared = 0

    def bundles(self) -> Iterator[dict[str, Any]]:
        for number, (name, version) in enumerate(self.versions):
            run = sha("run", number)[:32]
            node, run_node = lineage.version(name, version), lineage.run(run)
            used = self.used_by(number)
            edges = [[node, run_node, lineage.MADE_BY, "", ""]]
            edges += [
                [run_node, lineage.dataset(self.dataset_ids[item]), lineage.USED, "training", "1"]
                for item in used
            ]
            yield {
                "id": f"b{number:06}",
                "digest": sha("bundle", number),
                "model_name": name,
                "model_version": version,
                "model_id": "",
                "run_id": run,
                "source": f"mlflow-artifacts:/{name}/{version}",
                "files": [{"path": "model.onnx", "sha256": sha("file", number), "size": 1_000_000}],
                "entry": "model.onnx",
                "interface": {"inputs": [{"name": "x", "dtype": "tensor(float)", "shape": [None, 30]}]},
                "baseline_sha256": sha("baseline", number),
                "lineage": {
                    "node": node,
                    "run": {
                        "id": run,
                        "name": f"run-{number}",
                        "experiment_id": "1",
                        "params": {f"p{i}": str(self.chance.random()) for i in range(30)},
                        "metrics": {f"m{i}": self.chance.random() for i in range(20)},
                        "tags": {},
                        "user": "somebody",
                        "source": "train.py",
                        "commit": sha("commit", number)[:40],
                    },
                    "logged_model": None,
                    "datasets": [
                        {
                            "id": self.dataset_ids[item],
                            "name": self.datasets[item][0],
                            "digest": self.datasets[item][1],
                            "content": self.datasets[item][2],
                            "source_type": "local",
                            "source": "{}",
                            "context": "training",
                        }
                        for item in used
                    ],
                    "edges": edges,
                    "gaps": [],
                },
                "created_at": BEGIN + timedelta(minutes=number),
            }

    def used_by(self, number: int) -> list[int]:
        own = sorted({(number * 5 + item) % len(self.datasets) or 1 for item in range(5)})
        return [*own, self.shared] if number % 5 == 0 else own

    def bundle_of(self, target: int, turn: int) -> int:
        return (target * 7 + turn * 13) % len(self.versions)


def fill(state: State, fleet: Fleet) -> None:
    """Every row, in batches."""
    args = fleet.args
    turns = args.executions // args.targets
    bundles = list(fleet.bundles())
    put(state, models.Bundle, bundles)
    put(
        state,
        models.Dataset,
        (
            {
                "id": identifier,
                "name": name,
                "digest": digest,
                "content": content,
                "source_type": "local",
                "source": "{}",
                "first_seen_at": BEGIN,
            }
            for identifier, (name, digest, content) in zip(fleet.dataset_ids, fleet.datasets, strict=True)
        ),
    )
    columns = ("child", "parent", "how", "context", "experiment_id")
    put(
        state,
        models.LineageEdge,
        (dict(zip(columns, edge, strict=True)) for row in bundles for edge in row["lineage"]["edges"]),
    )
    put(
        state,
        models.Deployment,
        (
            {
                "id": f"d{number:06}",
                "name": f"fleet-{number}",
                "live_name": f"fleet-{number}",
                "fleet": "",
                "selector": "",
                "alias": "",
                "model_name": fleet.versions[number][0],
                "settings": {},
                "rollout_id": f"r{number:06}",
                "created_at": BEGIN,
                "created_by": "bench",
                "updated_at": BEGIN,
            }
            for number in range(len(bundles))
        ),
    )
    put(
        state,
        models.Rollout,
        (
            {
                "id": f"r{number:06}",
                "deployment_id": f"d{number:06}",
                "number": 1,
                "bundle_id": f"b{number:06}",
                "model_uri": "models:/x/1",
                "settings": {},
                "reason": "created",
                "created_at": BEGIN,
                "created_by": "bench",
                "state": "succeeded",
                "wave": 1,
                "why": "",
            }
            for number in range(len(bundles))
        ),
    )
    digests = [row["digest"] for row in bundles]
    put(state, models.Target, (target(fleet, digests, number, turns) for number in range(args.targets)))
    put(
        state,
        models.Label,
        (
            {"key": key, "value": value, "target_id": f"robot-{number:06}"}
            for number in range(args.targets)
            for key, value in labels(number).items()
        ),
    )
    put(state, models.Execution, executions(fleet, turns))
    put(state, models.Served, served(fleet, digests, turns))
    with state.database.write() as session:
        session.execute(text("ANALYZE"))


def labels(number: int) -> dict[str, str]:
    return {"site": f"s{number % SITES:03}", "ring": "canary" if number % 50 == 0 else "main"}


def target(fleet: Fleet, digests: list[str], number: int, turns: int) -> dict[str, Any]:
    bundle = fleet.bundle_of(number, turns - 1)
    before = fleet.bundle_of(number, turns - 2)
    name, version = fleet.versions[bundle]
    execution = f"{number:06}-{turns - 1}"
    return {
        "id": f"robot-{number:06}",
        "labels": labels(number),
        "created_at": BEGIN,
        "deployment_id": f"d{bundle:06}",
        "rollout_id": f"r{bundle:06}",
        "held_by": "",
        "hold_reason": "",
        "generation": turns,
        "published_generation": turns,
        "connected": True,
        "last_seen_at": BEGIN + timedelta(days=turns),
        "presence": {
            "kind": "heartbeat",
            "boot": "b",
            "execution": execution,
            "model": name,
            "version": version,
            "digest": digests[bundle],
            "previous_digest": digests[before],
            "agent_version": "0.1.0",
            "onnxruntime_version": "1.23.0",
            "platform": "linux-aarch64",
            "serving": True,
        },
        "actual_digest": digests[bundle],
        "previous_digest": digests[before],
        "actual_generation": turns,
    }


def executions(fleet: Fleet, turns: int) -> Iterator[dict[str, Any]]:
    for number in range(fleet.args.targets):
        for turn in range(turns):
            bundle = fleet.bundle_of(number, turn)
            at = BEGIN + timedelta(days=turn)
            yield {
                "id": f"{number:06}-{turn}",
                "target_id": f"robot-{number:06}",
                "deployment_id": f"d{bundle:06}",
                "rollout_id": f"r{bundle:06}",
                "generation": turn + 1,
                "action": "install",
                "state": "deployed",
                "reason": "",
                "message": "",
                "attempt": 1,
                "trial_requests": 0,
                "trial_errors": 0,
                "created_at": at,
                "updated_at": at,
                "finished_at": at,
            }


def served(fleet: Fleet, digests: list[str], turns: int) -> Iterator[dict[str, Any]]:
    for number in range(fleet.args.targets):
        for turn in range(turns):
            bundle = fleet.bundle_of(number, turn)
            yield {
                "target_id": f"robot-{number:06}",
                "digest": digests[bundle],
                "bundle_id": f"b{bundle:06}",
                "execution_id": f"{number:06}-{turn}",
                "since": BEGIN + timedelta(days=turn),
                "until": BEGIN + timedelta(days=turn + 1) if turn + 1 < turns else None,
            }


def put(state: State, table: Any, rows: Any) -> None:
    batch: list[dict[str, Any]] = []

    def write() -> None:
        with state.database.write() as session:
            session.connection().execute(insert(table.__table__), batch)

    for row in rows:
        batch.append(row)
        if len(batch) >= BATCH:
            write()
            batch.clear()
    if batch:
        write()
