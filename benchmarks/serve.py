"""The agent's server beside other servers of ONNX models, in one interleaved run.

    python benchmarks/serve.py [--rounds 2] [--seconds 2] [--only edgeflow-agent,MLServer] [--report docs]

Every peer is installed into a venv of its own below `benchmarks/.peers` (some GB, once). Needs wrk. Every
cell is measured once in each round, all servers in turn, and the medians are shown: a busy machine then
harms all alike. Compare ratios, not figures of different runs.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import socket
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

from benchmarks.serving import contestants, load, models, report

PEERS = Path(__file__).parent / ".peers"
_TURNS = 6
# (column, model, connections, as bytes)
CELLS = (
    ("iris, 1 connection", "iris", 1, False),
    ("iris, 8 connections", "iris", 8, False),
    ("iris, 64 connections", "iris", 64, False),
    ("image as JSON, 2 connections", "mobilenet", 2, False),
    ("image as bytes, 8 connections", "mobilenet", 8, True),
)


def free_port() -> int:
    """A port with two free ones behind it, as some peers want."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 65000 and all(_free(port + extra) for extra in (1, 2)):
            return port


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def raw(model: Path, seconds: float) -> float:
    """Runs a second of ONNX Runtime itself, in as many threads as there are cores: the most there can be."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options)
    feed = {"image": models.image()}
    session.run(None, feed)
    end = time.perf_counter() + seconds

    def work() -> int:
        count = 0
        while time.perf_counter() < end:
            session.run(None, feed)
            count += 1
        return count

    workers = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return sum(item.result() for item in [pool.submit(work) for _ in range(workers)]) / seconds


def main() -> int:
    """Measure, show, and say whether the goals are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--report", type=Path, help="folder for the table and the picture")
    given = parser.parse_args()
    load.program()
    wanted = [
        item for item in contestants.CONTESTANTS if given.only == "" or item.name in given.only.split(",")
    ]
    pythons = {item.name: contestants.python_of(item, PEERS) for item in wanted}
    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = models.write(folder)
        models.bodies(folder)
        for number in range(given.rounds):
            for item in wanted:
                python = pythons[item.name]
                if python is None:
                    continue
                print(f"round {number + 1}: {item.name}", flush=True)
                try:
                    measure(item, python, places, folder, given.seconds, found)
                except RuntimeError as error:
                    print(error)
    medians = {
        name: {cell: report.median(values) for cell, values in cells.items()} for name, cells in found.items()
    }
    table = report.table(medians, [cell for cell, *_ in CELLS])
    print(table)
    if given.report:
        report.write(given.report, table, medians)
    return report.goals(medians)


def measure(
    item: contestants.Contestant,
    python: Path,
    places: dict[str, Path],
    folder: Path,
    seconds: int,
    found: dict[str, dict[str, list[Any]]],
) -> None:
    """All cells of one server, once; what is held against ONNX Runtime itself in turns with it."""
    into = found[item.name]
    for model, place in places.items():
        body = folder / item.body.format(model=model)
        with contestants.running(
            item, python, place, model, port := free_port(), folder, body.read_bytes()
        ) as (pid, started):
            into[f"start, {model}"].append(started)
            into[f"memory, {model}"].append(load.resident_mb(pid))
            for cell, wanted, connections, as_bytes in CELLS:
                if wanted != model or (as_bytes and not item.binary):
                    continue
                sent, kind = (
                    (folder / "mobilenet.raw", "application/octet-stream")
                    if as_bytes
                    else (body, "application/json")
                )
                url = f"http://127.0.0.1:{port}{item.path}"
                load.ask(url, sent, kind, connections=connections, seconds=1)
                for _ in range(_TURNS if as_bytes else 1):
                    if as_bytes:
                        found[report.RAW][cell].append(report.of_rate(raw(place, 1)))
                    asked_s = 1 if as_bytes else seconds
                    into[cell].append(load.ask(url, sent, kind, connections=connections, seconds=asked_s))


if __name__ == "__main__":
    sys.exit(main())
