"""The agent's server beside other servers of ONNX models, in one interleaved run.

    python benchmarks/serve.py [--rounds 5] [--seconds 4] [--only edgeflow-agent,MLServer] [--report docs]

Every peer is installed into a venv of its own below `benchmarks/.peers` (some GB, once). Needs wrk. All
servers run side by side and are asked one right after the other, round after round: a busy or slow moment of
the machine then harms all alike. The table shows medians; a ratio is the median of the ratios of the rounds.
Compare ratios, not figures of different runs.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import socket
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

from benchmarks.serving import contestants, load, models, report

PEERS = Path(__file__).parent / ".peers"
_STARTS = 3
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
    begin = time.perf_counter()

    def work() -> float:
        count = 0
        while (taken := time.perf_counter() - begin) < seconds:
            session.run(None, feed)
            count += 1
        return count / taken

    workers = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return sum(item.result() for item in [pool.submit(work) for _ in range(workers)])


def main() -> int:
    """Measure, show, and say whether the goals are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", default="")
    parser.add_argument("--report", type=Path, help="folder for the table and the picture")
    given = parser.parse_args()
    load.program()
    wanted = [
        item for item in contestants.CONTESTANTS if given.only == "" or item.name in given.only.split(",")
    ]
    pythons = [(item, contestants.python_of(item, PEERS)) for item in wanted]
    found: report.Found = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = models.write(folder)
        models.bodies(folder)
        for model, place in places.items():
            with contextlib.ExitStack() as stack:
                running = []
                for item, python in pythons:
                    try:
                        if python is not None:
                            running.append(start(stack, item, python, place, model, folder, found))
                    except RuntimeError as error:
                        print(error)
                for number in range(given.rounds):
                    print(f"{model}: round {number + 1}", flush=True)
                    measure(running, model, place, folder, given.seconds, found)
                for one in running:
                    found[one.item.name][f"memory, {model}"].append(load.resident_mb(one.pid))
    table = report.table(found, [cell for cell, *_ in CELLS])
    print(table)
    if given.report:
        report.write(given.report, table, found)
    return report.goals(found)


class Running(NamedTuple):
    """A server that answers."""

    item: contestants.Contestant
    pid: int
    port: int


def start(
    stack: contextlib.ExitStack,
    item: contestants.Contestant,
    python: Path,
    place: Path,
    model: str,
    folder: Path,
    found: report.Found,
) -> Running:
    """Start a server several times, noting how long its first answer takes; the last one stays."""
    body = (folder / item.body.format(model=model)).read_bytes()
    for number in range(_STARTS):
        print(f"{model}: start {number + 1} of {item.name}", flush=True)
        port = free_port()
        with contextlib.ExitStack() as own:
            pid, took = own.enter_context(contestants.running(item, python, place, model, port, folder, body))
            found[item.name][f"start, {model}"].append(took)
            if number == _STARTS - 1:
                stack.push(own.pop_all())
    return Running(item, pid, port)


def measure(
    running: list[Running], model: str, place: Path, folder: Path, seconds: int, found: report.Found
) -> None:
    """One round: each cell of this model at each server, one right after the other."""
    for cell, wanted, connections, as_bytes in CELLS:
        if wanted != model:
            continue
        if as_bytes:
            found[report.RAW][cell].append(report.of_rate(raw(place, seconds)))
        for item, _, port in running:
            if as_bytes and not item.binary:
                continue
            sent = folder / ("mobilenet.raw" if as_bytes else item.body.format(model=model))
            kind = "application/octet-stream" if as_bytes else "application/json"
            url = f"http://127.0.0.1:{port}{item.path}"
            if not found[item.name][cell]:
                load.ask(url, sent, kind, connections=connections, seconds=1)
            found[item.name][cell].append(load.ask(url, sent, kind, connections=connections, seconds=seconds))


if __name__ == "__main__":
    sys.exit(main())
