"""What it costs to look at requests: the same agent with and without, in turns, and the memory of a feature.

    python benchmarks/bench_observing.py [--rounds 7] [--seconds 3]

Goals: under 5 % more latency for iris at 8 connections, under 2 % for an image model, under 8 KB a feature.
Needs wrk. Both agents run all the time; a ratio is the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.serving import load, models
from edgeflow_agent.drift import baseline_file, build, sketch
from edgeflow_agent.drift.features import Described

# model: most that its latency may grow, the body of a request, its type
GOALS = {
    "iris": (1.05, "iris.json", "application/json"),
    "mobilenet": (1.02, "mobilenet.raw", "application/octet-stream"),
}
GOAL_BYTES = 8 * 1024
CONNECTIONS = 8
_FEATURES = 30


@contextlib.contextmanager
def agent(model: Path, folder: Path, share: str) -> Iterator[str]:
    """An agent that serves `model`; where it answers."""
    words = [sys.executable, "-m", "edgeflow_agent.cli", "serve", str(model), "--port", "0"]
    environment = {"EDGEFLOW_AGENT_TELEMETRY_CPU_SHARE": share, "ORT_DISABLE_TELEMETRY": "1"}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().partition(" on ")[0].rpartition(":")[2]
            yield f"http://127.0.0.1:{int(port)}/infer"
        finally:
            process.terminate()


def memory_per_feature() -> float:
    """Bytes of counters of one numeric feature: the window that is open, and what waits to be judged."""
    rng = np.random.default_rng(1)
    columns = [Described(f"f{number}", rng.normal(size=20_000)) for number in range(_FEATURES)]
    baseline = baseline_file.parse(build.encode(build.build(columns)))
    sizes = []
    for feature in baseline.features:
        counted = sketch.empty(feature)
        counted.fold(rng.normal(size=5_000))
        sizes.append(counted.nbytes)
    return statistics.mean(sizes)


def main() -> int:
    """Measure, print, and say whether the goals are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    given = parser.parse_args()
    kept = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = models.write(folder)
        models.bodies(folder)
        for model, (goal, file, kind) in GOALS.items():
            body = folder / file
            with (
                agent(written[model], folder, "0") as without,
                agent(written[model], folder, "0.005") as watched,
            ):
                found = []
                for url in (without, watched):
                    load.ask(url, body, kind, connections=CONNECTIONS, seconds=given.seconds)
                for number in range(given.rounds):
                    pair = {}
                    for url in (without, watched) if number % 2 else (watched, without):
                        pair[url] = load.ask(url, body, kind, connections=CONNECTIONS, seconds=given.seconds)
                    found.append((pair[without], pair[watched]))
            ratio = statistics.median(two.p50_ms / one.p50_ms for one, two in found)
            rate = statistics.median(one.per_second / two.per_second for one, two in found)
            tail = statistics.median(two.p99_ms / one.p99_ms for one, two in found)
            kept &= ratio <= goal
            print(
                f"{model}: latency with looking {ratio:.3f} of without (p50), {tail:.3f} (p99), "
                f"time a request {rate:.3f}; goal {goal:g}"
            )
    size = memory_per_feature()
    kept &= size <= GOAL_BYTES
    print(f"memory: {size:,.0f} bytes a feature; goal {GOAL_BYTES}")
    print("kept" if kept else "MISSED")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
