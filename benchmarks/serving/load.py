"""Asking a server as fast as it answers, with wrk; and what its processes cost."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one server did: requests a second, milliseconds, and how many answers were no success."""

    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    requests: int = 0


def program() -> str:
    """The load generator; ends the benchmark with what to do when it is missing."""
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit("this benchmark needs wrk: apt-get install wrk")
    return found


def ask(url: str, body: Path, kind: str, *, connections: int, seconds: int, pause_ms: int = 0) -> Load:
    """POST the same body over so many connections that are kept, and take the answer in the same type. Each
    connection waits for `pause_ms` between an answer and its next request."""
    script = (
        f'wrk.method = "POST"\nlocal f = io.open("{body}", "rb")\nwrk.body = f:read("*a")\nf:close()\n'
        f'wrk.headers["Content-Type"] = "{kind}"\nwrk.headers["Accept"] = "{kind}"\n'
    )
    if pause_ms:
        script += f"function delay() return {pause_ms} end\n"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        words = [program(), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", file.name, url]
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    errors = sum(
        int(number)
        for number in re.findall(r"(?:Non-2xx or 3xx responses|timeout|read|write|connect):? (\d+)", text)
    )
    return Load(
        per_second=float(_found(r"Requests/sec:\s+([\d.]+)", text)[0]),
        p50_ms=_milliseconds(_found(r"50%\s+([\d.]+)(us|ms|s|m)", text)),
        p99_ms=_milliseconds(_found(r"99%\s+([\d.]+)(us|ms|s|m)", text)),
        errors=errors,
        requests=int(_found(r"(\d+) requests in", text)[0]),
    )


def _found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"wrk did not say {pattern}:\n{text}")
    return match.groups()


def _milliseconds(words: tuple[str, ...]) -> float:
    return float(words[0]) * _UNITS[words[1]]


def resident_mb(pid: int) -> float:
    """Resident memory of a process and all below it, in 10^6 bytes."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(item.memory_info().rss for item in processes) / 1e6
