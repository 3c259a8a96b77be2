"""Requests while versions are swapped, against the same requests without: failures and latency.

    python benchmarks/bench_swap.py [--requests 20000] [--swaps 10]

Phases without and with swaps alternate in one run. Needs wrk. The server stands for another machine: it gets
the processor last. Goals: 0 failed of at least 20,000, a p99 while versions are swapped under 3 times the p99
without (median of the pairs), and with `--swaps 100` memory back within 10 %.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import fleet as parts
import psutil

from benchmarks.serving import load
from tests.harness import Agent, Server

GOAL_RATIO = 3.0
GOAL_MEMORY = 1.1
_CONNECTIONS = 4
# Paced, so that the load generator does not take the processor from what it measures.
_PAUSE_MS = 2
_PHASE_S = 5


def _resident(agent: Agent) -> int:
    assert agent.process.popen is not None
    return int(psutil.Process(agent.process.popen.pid).memory_info().rss)


def _comes_last(server: Server) -> None:
    """Leave the processor to others. Linux weighs sessions first, and priorities only within one."""
    assert server.process.popen is not None
    first = psutil.Process(server.process.popen.pid)
    for process in (first, *first.children(recursive=True)):
        for thread in process.threads():
            os.setpriority(os.PRIO_PROCESS, thread.id, 19)
    with contextlib.suppress(FileNotFoundError):  # no such groups here
        Path(f"/proc/{first.pid}/autogroup").write_text("19", encoding="ascii")


def main() -> None:
    """Alternate quiet and swapping phases until there are enough requests and enough swaps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--swaps", type=int, default=10)
    words = parser.parse_args()
    quiet: list[load.Load] = []
    swapping: list[load.Load] = []
    swaps, version = 0, 1
    with (
        tempfile.TemporaryDirectory() as place,
        parts.fleet(Path(place), hidden=4_000) as (server, agent),
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        body = Path(place) / "row.json"
        body.write_text(json.dumps(parts.ROW))

        def ask() -> load.Load:
            return load.ask(
                f"{agent.url}/infer",
                body,
                "application/json",
                connections=_CONNECTIONS,
                seconds=_PHASE_S,
                pause_ms=_PAUSE_MS,
            )

        _comes_last(server)
        parts.move(server, 2)  # both models were there once: what is left of them is no growth
        parts.move(server, 1)
        before = _resident(agent)
        while swaps < words.swaps or sum(item.requests for item in (*quiet, *swapping)) < words.requests:
            quiet.append(ask())
            asking = pool.submit(ask)
            while not asking.done():
                version = 3 - version
                parts.move(server, version)
                swaps += 1
            swapping.append(asking.result())
        growth = _resident(agent) / before
    every = [*quiet, *swapping]
    count, failed = sum(item.requests for item in every), sum(item.errors for item in every)
    ratio = statistics.median(
        with_.p99_ms / without.p99_ms for with_, without in zip(swapping, quiet, strict=True)
    )
    print(f"{count} requests, {swaps} swaps, {failed} failed")
    for name, phases in (("without swaps", quiet), ("with swaps", swapping)):
        p50, p99 = (
            statistics.median(values)
            for values in zip(*((item.p50_ms, item.p99_ms) for item in phases), strict=True)
        )
        print(f"{name:14} p50 {p50:.2f} ms  p99 {p99:.2f} ms")
    kept = not failed and count >= words.requests and ratio < GOAL_RATIO and growth < GOAL_MEMORY
    print(f"p99 ratio {ratio:.2f}, memory {growth:.2f} of what it was")
    print(f"goal: 0 failed, under {GOAL_RATIO:g}, under {GOAL_MEMORY:g}: {'kept' if kept else 'MISSED'}")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
