"""How large and how quick an idle server is: `edgeflow server` beside a plain `mlflow server`, in turns.

    python benchmarks/bench_server.py [--rounds 3]

Goal: at most 400 MB over all processes of `edgeflow server`, ready in under 8 s.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil

from tests.harness import BIN, Process, Server, free_port, request, until

GOAL_MB, GOAL_S = 400, 8


def memory_mb(pid: int) -> tuple[float, int]:
    """Resident memory over a process and everything below it, and how many they are."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(item.memory_info().rss for item in processes) / 1e6, len(processes)


def settled(pid: int) -> tuple[float, int]:
    """Memory once it has stopped growing."""
    last = memory_mb(pid)
    deadline = time.monotonic() + 20
    quiet = 0
    while quiet < 6 and time.monotonic() < deadline:
        time.sleep(0.5)
        now = memory_mb(pid)
        quiet = quiet + 1 if abs(now[0] - last[0]) < 2 else 0
        last = now
    return last


def edgeflow(folder: Path) -> tuple[float, float, int]:
    """Seconds until its hub runs, MB, processes."""
    server = Server(folder)
    began = time.monotonic()
    server.start()
    until(lambda: request("GET", f"{server.api}/ready").json["mqtt_healthy"], "MQTT")
    ready = time.monotonic() - began
    assert server.process.popen is not None
    size, count = settled(server.process.popen.pid)
    server.stop()
    return ready, size, count


def plain(folder: Path) -> tuple[float, float, int]:
    """The same of MLflow as it comes."""
    port = free_port()
    process = Process([str(BIN / "mlflow"), "server", "--port", str(port)], folder, "mlflow")
    began = time.monotonic()
    process.start()
    until(lambda: request("GET", f"http://127.0.0.1:{port}/health").status == 200, "MLflow", 120)
    ready = time.monotonic() - began
    assert process.popen is not None
    size, count = settled(process.popen.pid)
    process.stop()
    return ready, size, count


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    found: dict[str, list[tuple[float, float, int]]] = {"edgeflow server": [], "mlflow server": []}
    with tempfile.TemporaryDirectory() as place:
        for number in range(rounds):
            found["edgeflow server"].append(edgeflow(Path(place) / f"e{number}"))
            found["mlflow server"].append(plain(Path(place) / f"m{number}"))
    print(f"{'':18}{'ready s':>9}{'MB':>8}{'processes':>11}   (medians of {rounds})")
    medians = {}
    for name, rows in found.items():
        medians[name] = [statistics.median(column) for column in zip(*rows, strict=True)]
        ready, size, count = medians[name]
        print(f"{name:18}{ready:9.1f}{size:8.0f}{count:11.0f}")
    ready, size, _ = medians["edgeflow server"]
    kept = ready < GOAL_S and size <= GOAL_MB
    print(f"goal: under {GOAL_S} s and at most {GOAL_MB} MB: {'kept' if kept else 'MISSED'}")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
