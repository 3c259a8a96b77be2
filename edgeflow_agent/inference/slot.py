"""Which model answers: one immutable reference that a request reads once, so a swap drops nothing."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edgeflow_agent import steps
from edgeflow_agent.inference import engine
from edgeflow_agent.inference.protocols import quick
from edgeflow_agent.wire.documents import Interface, ModelRef, Monitor, Runtime

_WARM_UPS = 3
# A run that takes so long tells by itself that the model is slow: the device answers sooner without others.
_ENOUGH_S = 0.01
_STEP = 1.1
_DRAIN_POLL_S = 0.005
# A model that has never run is taken for slow until its warm-up says otherwise.
_UNKNOWN_RUN_S = 1.0
_DEVICES_OWN = Runtime()


class Stats:
    """What a model has done since it was loaded. Written by the event loop alone, read by anybody."""

    __slots__ = ("active", "errors", "non_finite", "on_trial", "requests", "run_s", "seconds")

    def __init__(self, run_s: float) -> None:
        self.active = 0  # requests being answered
        self.requests = 0  # runs that were tried; a caller's own mistake is none
        self.errors = 0  # runs that the model failed
        self.non_finite = 0  # answers with a NaN or an infinity; looked for on trial only
        self.on_trial = False  # set by whoever watches the trial
        self.seconds = 0.0  # over all runs
        self.run_s = run_s  # what one run usually takes

    def mean_s(self) -> float:
        """Mean time of one run; 0 before the first."""
        return self.seconds / self.requests if self.requests else 0.0

    def ran(self, seconds: float, *, own_s: float, failed: bool, non_finite: bool = False) -> None:
        """Count one run. `own_s` is what it took by itself, without waiting for other threads."""
        self.requests += 1
        self.seconds += seconds
        # A step towards the median, in proportion: one run that the system interrupted says nothing,
        # where a mean would take a fast model for a slow one for the next hundred requests.
        self.run_s *= _STEP if own_s > self.run_s else 1 / _STEP
        if failed:
            self.errors += 1
        if non_finite:
            self.non_finite += 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serving:
    """A loaded model and what it is called."""

    engine: engine.Engine
    interface: Interface
    model: ModelRef
    digest: str = ""
    deployment: str = ""
    execution: str = ""
    generation: int = 0
    release: str = ""
    runtime: Runtime = dataclasses.field(default_factory=Runtime)
    loaded_at: datetime = dataclasses.field(default_factory=lambda: datetime.now(UTC))
    load_s: float = 0.0
    stats: Stats = dataclasses.field(default_factory=lambda: Stats(_UNKNOWN_RUN_S))
    steps: steps.Pipeline | None = None
    folder: Path | None = None  # of the graph
    monitor: Monitor = dataclasses.field(default_factory=Monitor)

    @functools.cached_property
    def quick_decode(self) -> quick.Decode:
        """The short way from JSON to the feed of this model, where there is one."""
        return quick.plan(self.interface)

    @functools.cached_property
    def encoded_name(self) -> msgspec.Raw:
        """Name and version as JSON: the same in every answer."""
        return msgspec.Raw(msgspec.json.encode({"name": self.model.name, "version": self.model.version}))


def load(
    path: Path,
    *,
    model: ModelRef,
    declared: Interface,
    threads: int,
    runtime: Runtime = _DEVICES_OWN,
    providers: Sequence[str] = (),
    compiled: Path | None = None,
    digest: str = "",
    deployment: str = "",
    execution: str = "",
    generation: int = 0,
    release: str = "",
    monitor: Monitor | None = None,
) -> Serving:
    """Load and warm up a model that is not yet to serve. `threads` and `providers` are what `runtime` leaves
    to the device, `compiled` is a folder for its optimised form. Its steps are the `steps.json` beside it.
    Raise ModelError."""
    begin = time.perf_counter()
    loaded = engine.Engine(
        path,
        threads=runtime.threads or threads,
        providers=runtime.providers or providers,
        compiled=compiled,
        digest=digest,
    )
    engine.check_interface(loaded, declared.inputs)
    interface = Interface(
        inputs=loaded.inputs, outputs=loaded.outputs, columns=declared.columns, labels=declared.labels
    )
    declared_steps = steps.of_graph(path, loaded.inputs, loaded.outputs)
    run_s = _warm_up(loaded, runtime.load_timeout_s)
    engine.trim_memory()
    return Serving(
        engine=loaded,
        interface=interface,
        model=model,
        digest=digest,
        deployment=deployment,
        execution=execution,
        generation=generation,
        release=release,
        runtime=runtime,
        load_s=time.perf_counter() - begin,
        stats=Stats(run_s),
        steps=declared_steps,
        folder=path.parent,
        monitor=monitor or Monitor(),
    )


def _warm_up(loaded: engine.Engine, timeout_s: float) -> float:
    handle = engine.RunHandle()
    timer = threading.Timer(timeout_s, handle.terminate)
    timer.daemon = True
    timer.start()
    best = _UNKNOWN_RUN_S
    try:
        for _ in range(_WARM_UPS):
            begin = time.perf_counter()
            loaded.warm_up(handle)
            best = min(best, time.perf_counter() - begin)
            if best > _ENOUGH_S:
                break
    finally:
        timer.cancel()
    return best


class Slot:
    """`current` answers. During a trial `previous` stays loaded, so that going back takes no time."""

    def __init__(self) -> None:
        self.current: Serving | None = None
        self.previous: Serving | None = None
        self.swaps = 0
        self.on_change: Callable[[], None] = lambda: None
        """Called when another model answers, in the thread that made it so."""

    def swap(self, candidate: Serving) -> None:
        """Let `candidate` answer from the next request on."""
        self.previous, self.current = self.current, candidate
        self.swaps += 1
        self.on_change()

    def revert(self, replacement: Serving | None) -> None:
        """Let `replacement` (None: nothing) answer instead of the model on trial."""
        retired = self.current
        self.current, self.previous = replacement, None
        self.swaps += 1
        self.on_change()
        drain(retired)

    def rename(self, renamed: Serving) -> None:
        """The same model under another deployment's names."""
        self.current = renamed
        self.on_change()

    def release_previous(self, timeout_s: float = 30.0) -> None:
        """Let the old model go once its last request is answered."""
        retired, self.previous = self.previous, None
        drain(retired, timeout_s)
        del retired
        engine.trim_memory()

    def clear(self) -> None:
        """Answer nothing more."""
        retired = self.current
        self.current = self.previous = None
        self.on_change()
        drain(retired)
        del retired
        engine.trim_memory()


def drain(retired: Serving | None, timeout_s: float = 30.0) -> bool:
    """Wait until nobody is being answered by `retired`; False when that took too long. Its memory goes
    with its last reference in any case."""
    if retired is None:
        return True
    deadline = time.monotonic() + timeout_s
    while retired.stats.active > 0:
        if time.monotonic() > deadline:
            return False
        time.sleep(_DRAIN_POLL_S)
    return True
