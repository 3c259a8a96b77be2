"""From `create` to `deployed` on one device over the embedded broker, with a model of 1 MB.

    python benchmarks/bench_deploy.py [--rounds 15]

Each round is a model version that neither the server nor the device has seen. Goal: median under 2 s.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import fleet as parts
import mlflow

from edgeflow_mlflow.api import records

GOAL_S = 2.0
_HIDDEN = 37_500  # 28 bytes each: about 1.05 MB


def main() -> None:
    """Print the median and the extremes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    times = []
    with tempfile.TemporaryDirectory() as place, parts.fleet(Path(place), hidden=_HIDDEN) as (server, _):
        server.client.delete_deployment("net")
        for number in range(rounds):
            made = mlflow.onnx.log_model(
                parts.network(100 + number, _HIDDEN),
                name="net",
                registered_model_name="net",
                save_as_external_data=False,
            )
            name = f"net-{number}"
            where = records.Place(targets=["robot-07"])
            began = time.perf_counter()
            server.client.create_deployment(
                records.DeploymentCreate(
                    name=name, model_uri=f"models:/net/{made.registered_model_version}", where=where
                )
            )
            parts.deployed(server, name)
            times.append(time.perf_counter() - began)
            server.client.delete_deployment(name)
    median = statistics.median(times)
    print(
        f"create to deployed, 1 MB: median {median:.2f} s, {min(times):.2f} to {max(times):.2f}, n={rounds}"
    )
    print(f"goal: median under {GOAL_S:g} s: {'kept' if median < GOAL_S else 'MISSED'}")
    sys.exit(median >= GOAL_S)


if __name__ == "__main__":
    main()
