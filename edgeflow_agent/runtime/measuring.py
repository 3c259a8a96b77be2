"""What this device can do with a model: how long it loads, how long a run takes, how many a second."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import http.client
import itertools
import os
import resource
import socket
import time
from collections.abc import Callable

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.config import AgentConfig
from edgeflow_agent.inference import engine
from edgeflow_agent.runtime import sources
from edgeflow_agent.runtime.standalone import Standalone


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """So many at once, each with so many threads. Times in milliseconds."""

    threads: int
    at_once: int
    per_second: float
    p50_ms: float
    p99_ms: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured; memory in MiB."""

    model: str
    providers: str
    cores: int
    load_ms: float
    resident_mb: float
    runs: tuple[Runs, ...]
    # None where the example is too long to be sent as text.
    http: Runs | None


def measure(config: AgentConfig, model: str, *, seconds: float, batch: int = 1) -> Measured:
    """Run the model on zeros for `seconds` in each way of dividing the cores, and once over HTTP."""
    source = sources.find(model, config)
    cores = os.cpu_count() or 1
    ways = sorted({(1, 1), (1, cores), (cores, 1)})
    runs = []
    load_ms = 0.0
    for threads, at_once in ways:
        begin = time.perf_counter()
        loaded = engine.Engine(source.path, threads=threads, providers=config.providers)
        load_ms = load_ms or (time.perf_counter() - begin) * 1e3
        feed = engine.zeros(loaded.inputs, batch=batch)
        runs.append(_runs(functools.partial(loaded.run, feed), threads, at_once, seconds))
    return Measured(
        model=source.model.name,
        providers=loaded.providers,
        cores=cores,
        load_ms=load_ms,
        resident_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        runs=tuple(runs),
        http=_over_http(config, model, seconds),
    )


def _runs(run: Callable[[], object], threads: int, at_once: int, seconds: float) -> Runs:
    try:
        for _ in range(3):
            run()
    except errors.EdgeflowError as error:
        raise errors.ModelError(
            f"the model cannot run on zeros, so it cannot be measured: {error}"
        ) from error

    def work() -> list[float]:
        times = []
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            run()
            times.append(time.perf_counter() - begin)
        return times

    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        parts = [pool.submit(work) for _ in range(at_once)]
        times = sorted(itertools.chain.from_iterable(part.result() for part in parts))
    return _summary(times, time.perf_counter() - begin, threads, at_once)


def _over_http(config: AgentConfig, model: str, seconds: float) -> Runs | None:
    own = dataclasses.replace(config, host="127.0.0.1", port=0, unix_socket="")
    service = Standalone(own, model)
    service.start()
    try:
        if "…" in service.example:
            return None
        host, _, port = service.url.removeprefix("http://").partition(":")
        link = http.client.HTTPConnection(host, int(port), timeout=60)
        link.connect()
        link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times: list[float] = []
        start = time.perf_counter()
        while (begin := time.perf_counter()) < start + seconds or not times:
            link.request("POST", "/infer", service.example.encode())
            answer = link.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise errors.ModelError(f"the model refuses its own example: {text.decode(errors='replace')}")
            times.append(time.perf_counter() - begin)
        return _summary(sorted(times), time.perf_counter() - start, config.threads, 1)
    finally:
        service.stop()


def _summary(times: list[float], elapsed: float, threads: int, at_once: int) -> Runs:
    return Runs(
        threads=threads,
        at_once=at_once,
        per_second=len(times) / elapsed,
        p50_ms=times[len(times) // 2] * 1e3,
        p99_ms=times[min(len(times) * 99 // 100, len(times) - 1)] * 1e3,
    )


def advice(found: Measured) -> str:
    """Which settings to choose, in a sentence."""
    many = max(found.runs, key=lambda item: item.per_second)
    quick = min(found.runs, key=lambda item: item.p50_ms)
    if many == quick:
        return f"best with --threads {many.threads} --max-concurrent {many.at_once}"
    return (
        f"most requests/s with --threads {many.threads} --max-concurrent {many.at_once}, the shortest answer "
        f"with --threads {quick.threads} --max-concurrent {quick.at_once}"
    )
