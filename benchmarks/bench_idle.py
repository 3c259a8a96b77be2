"""What a thousand idle connections cost: memory, and the latency of those that are not idle.

    python benchmarks/bench_idle.py [--connections 1000]

Goal: under 10 MB, and no latency (a ratio of medians under 1.2).
"""

from __future__ import annotations

import argparse
import http.client
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.serving import models

GOAL_MB, GOAL_RATIO = 10.0, 1.2
_BODY = b"[5.1, 3.5, 1.4, 0.2]"


def latency(port: int, count: int) -> float:
    """Median seconds of requests one after the other."""
    link = http.client.HTTPConnection("127.0.0.1", port)
    link.connect()
    link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        link.request("POST", "/infer", _BODY)
        link.getresponse().read()
        times.append(time.perf_counter() - begin)
    link.close()
    return statistics.median(times)


def main() -> int:
    """Measure in turns, without and with idle connections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as name:
        model = models.write(Path(name))["iris"]
        words = [sys.executable, "-m", "edgeflow_agent.cli", "serve", str(model), "--port", "0"]
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            text=True,
            cwd=name,
        )
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().partition(" on ")[0].rpartition(":")[2])
            latency(port, 2000)
            memory, without, beside = [], [], []
            for _ in range(3):
                without.append(latency(port, 3000))
                before = psutil.Process(process.pid).memory_info().rss
                idle = []
                for _ in range(given.connections):
                    link = socket.create_connection(("127.0.0.1", port))
                    link.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
                    idle.append(link)
                for link in idle:
                    link.recv(4096)
                memory.append((psutil.Process(process.pid).memory_info().rss - before) / 1e6)
                beside.append(latency(port, 3000))
                for link in idle:
                    link.close()
        finally:
            process.kill()
            process.wait()
    ratio = statistics.median(beside) / statistics.median(without)
    kept = max(memory) < GOAL_MB and ratio < GOAL_RATIO
    alone, among = statistics.median(without) * 1e3, statistics.median(beside) * 1e3
    verdict = "kept" if kept else "MISSED"
    print(f"{given.connections} idle connections: {max(memory):.1f} MB")
    print(f"median latency {alone:.3f} ms, beside them {among:.3f} ms, ratio {ratio:.2f}")
    print(f"goal: under {GOAL_MB:g} MB and under {GOAL_RATIO:g}: {verdict}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
