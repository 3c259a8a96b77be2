"""Requests while versions are swapped, against the same requests without: failures and latency.

    python benchmarks/bench_swap.py [--requests 20000] [--swaps 10]

Phases without and with swaps alternate in one run. Goals: 0 failed of at least 20,000, a p99 during the
swaps under 3 times the p99 without, and with `--swaps 100` memory back within 10 % afterwards.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import fleet as parts
import psutil

from tests.harness import Agent

GOAL_RATIO = 3.0
GOAL_MEMORY = 1.1
_CONNECTIONS = 4
# Paced, so that the load generator does not take the processor from what it measures.
_PAUSE_S = 0.002


@dataclass
class Phase:
    """Latencies in ms, and what failed."""

    latencies: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def send(self, url: str) -> None:
        """One connection, one request after another."""
        parts_ = urlsplit(url)
        link = http.client.HTTPConnection(parts_.hostname or "", parts_.port or 80, timeout=10)
        body = json.dumps(parts.ROW)
        while not self.stop.is_set():
            began = time.perf_counter()
            try:
                link.request("POST", "/infer", body)
                answer = link.getresponse()
                answer.read()
                if answer.status != 200:
                    self.failed.append(str(answer.status))
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                link.close()
            self.latencies.append((time.perf_counter() - began) * 1000)
            time.sleep(_PAUSE_S)

    def p99(self) -> float:
        """The 99th percentile."""
        return statistics.quantiles(self.latencies, n=100)[98]


def run(url: str, work: object) -> Phase:
    """Send from all connections while `work` lasts."""
    phase = Phase()
    threads = [threading.Thread(target=phase.send, args=(url,)) for _ in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    work(phase)  # type: ignore[operator]
    phase.stop.set()
    for thread in threads:
        thread.join()
    return phase


def _resident(agent: Agent) -> int:
    assert agent.process.popen is not None
    return int(psutil.Process(agent.process.popen.pid).memory_info().rss)


def main() -> None:
    """Alternate quiet and swapping phases until there are enough requests of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--swaps", type=int, default=10)
    words = parser.parse_args()
    quiet, swapping, swaps = Phase(), Phase(), 0
    with tempfile.TemporaryDirectory() as place, parts.fleet(Path(place), hidden=4_000) as (server, agent):
        version = 1
        share = words.requests // 4

        def wait(phase: Phase) -> None:
            while len(phase.latencies) < share:
                time.sleep(0.02)

        def swap(phase: Phase) -> None:
            nonlocal version, swaps
            done = 0
            while len(phase.latencies) < share or done < words.swaps // 2:
                version = 3 - version
                parts.move(server, version)
                done += 1
            swaps += done

        parts.move(server, 2)  # both models were there once: what is left of them is no growth
        parts.move(server, 1)
        before = _resident(agent)
        for _ in range(2):
            for total, work in ((quiet, wait), (swapping, swap)):
                phase = run(agent.url, work)
                total.latencies += phase.latencies
                total.failed += phase.failed
        growth = _resident(agent) / before
    ratio = swapping.p99() / quiet.p99()
    count = len(quiet.latencies) + len(swapping.latencies)
    failed = quiet.failed + swapping.failed
    print(f"{count} requests, {swaps} swaps, {len(failed)} failed {failed[:3] or ''}")
    for name, phase in (("without swaps", quiet), ("with swaps", swapping)):
        middle = statistics.median(phase.latencies)
        print(f"{name:14} n={len(phase.latencies):6}  p50 {middle:.2f} ms  p99 {phase.p99():.2f} ms")
    kept = not failed and count >= words.requests and ratio < GOAL_RATIO and growth < GOAL_MEMORY
    print(f"p99 ratio {ratio:.2f}, memory {growth:.2f} of what it was")
    print(f"goal: 0 failed, under {GOAL_RATIO:g}, under {GOAL_MEMORY:g}: {'kept' if kept else 'MISSED'}")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
