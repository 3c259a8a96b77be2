"""The thread that turns requests into windows of telemetry, and says on the device itself what has drifted.

It takes a small, settled share of one core: the more requests come, the fewer of them it looks at.
"""

from __future__ import annotations

import collections
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from edgeflow_agent import errors
from edgeflow_agent.config import AgentConfig
from edgeflow_agent.drift import baseline_file
from edgeflow_agent.drift.baseline import Baseline
from edgeflow_agent.drift.learning import Learner
from edgeflow_agent.drift.watch import Watch
from edgeflow_agent.inference import tensors
from edgeflow_agent.inference.drift_view import DriftView
from edgeflow_agent.inference.metrics import Counted, Metrics
from edgeflow_agent.inference.observing import Observer, Taken, tables
from edgeflow_agent.inference.slot import Serving, Slot
from edgeflow_agent.runtime.resources import ResourceReader
from edgeflow_agent.runtime.turns import Turns
from edgeflow_agent.store.captures import CaptureStore
from edgeflow_agent.store.learned import LearnedBaselines
from edgeflow_agent.wire.sketches import SketchRecord
from edgeflow_agent.wire.telemetry import Latency, Requests, TelemetryWindow

logger = logging.getLogger(__name__)

_TURN_S = 1.0
_MOST_IDLE_TURNS = 5
# Between two steps of looking, so that no request waits for all of them.
_REST_S = 0.001
_PLACES = (Path("baseline.json"), Path("extra_files") / "baseline.json")
_MOST_EVERY = 10_000

Keep = Callable[[TelemetryWindow], None]


class Collector:
    """Windows for the model in the slot, from `start` to `stop`. `keep` is given each that was closed."""

    def __init__(
        self,
        config: AgentConfig,
        slot: Slot,
        metrics: Metrics,
        observer: Observer,
        keep: Keep,
        *,
        learned: LearnedBaselines | None = None,
        captures: CaptureStore | None = None,
    ) -> None:
        self._config = config
        self._slot = slot
        self._metrics = metrics
        self._observer = observer
        self._keep = keep
        self._learned = learned
        self._captures = captures
        self._resources = ResourceReader(config.state_dir)
        # One window at a time: a swap ends it in the thread of the deployment.
        self._lock = threading.Lock()
        self._window: _Window | None = None
        self._closed: collections.deque[TelemetryWindow] = collections.deque()
        # Where the window before ended: the next begins there, so that no request is in none.
        self._ended = (metrics.counted(), observer.seen)
        self._cost_s = 0.0  # of one request, as it was lately
        self._rate = 0.0  # requests a second, as it was lately
        self._measured = (observer.seen, time.monotonic())
        self._idle_turns = 0
        self._turns = Turns("telemetry", self._turn, at_end=self._end)

    def start(self) -> None:
        """Begin to look."""
        self._slot.on_change = self._changed
        self._turns.start()

    def stop(self, timeout_s: float = 15.0) -> None:
        """Close the window and end; may be called twice."""
        self._turns.stop(timeout_s)

    def drift(self) -> DriftView:
        """How the model that serves stands, as far as this device can tell."""
        window = self._window
        if window is None or window.watch is None:
            return DriftView()
        return DriftView(
            baseline=window.watch.baseline.digest,
            is_learned=window.is_learned,
            standings=tuple(window.watch.standings.values()),
        )

    # The thread.

    def _turn(self) -> float:
        try:
            with self._lock:
                self._follow()
                self._measure_rate()
                window = self._window
                is_over = window is not None and window.age_s() >= self._length_s(window.serving)
                # In few large portions: what a portion costs besides its rows is the same for each.
                self._idle_turns += 1
                if is_over or self._observer.is_filling or self._idle_turns >= _MOST_IDLE_TURNS:
                    self._idle_turns = 0
                    self._fold()
                self._set_every()
                if window is not None and is_over:
                    self._close()
                    self._open(window)
                wait_s = self._wait_s()
            self._keep_closed()
            self._keep_captured()
            return wait_s
        except Exception:
            # Whatever a model gave: serving goes on, and the next window may be better.
            logger.exception("collecting telemetry failed in an unexpected way")
            return _TURN_S

    def _end(self) -> None:
        try:
            with self._lock:
                self._fold()
                self._close()
            self._keep_closed()
            self._keep_captured()
        except Exception:
            logger.exception("the last window of telemetry is lost")

    def _changed(self) -> None:
        """Another model answers from now on. Called in the thread that swaps: it waits for no disk here."""
        with self._lock:
            try:
                self._follow()
            except Exception:
                logger.exception("a window of telemetry is lost")
        self._turns.wake()

    def _keep_closed(self) -> None:
        while self._closed:
            self._keep(self._closed.popleft())

    def _wait_s(self) -> float:
        window = self._window
        if window is None:
            return _TURN_S
        return max(min(_TURN_S, self._length_s(window.serving) - window.age_s()), 0.01)

    def _length_s(self, serving: Serving | None) -> float:
        own = self._config.telemetry_window_s
        return own or (serving.monitor.window_s if serving is not None else 60.0)

    def _keep_captured(self) -> None:
        for item in self._observer.captured():
            if self._captures is None:
                continue
            names = item.serving.engine.output_names
            try:
                self._captures.keep(
                    model=item.serving.model.name,
                    version=item.serving.model.version,
                    digest=item.serving.digest,
                    inputs={name: tensors.encode(value) for name, value in item.feed.items()},
                    outputs={
                        name: tensors.encode(value) for name, value in zip(names, item.outputs, strict=True)
                    },
                )
            except OSError as error:
                logger.error("a request could not be captured: %s", error)

    # Windows.

    def _follow(self) -> None:
        serving = self._slot.current
        window = self._window
        if window is not None and window.serving is serving:
            return
        if window is not None and _is_same_model(window.serving, serving):
            window.serving = serving  # under another deployment's names
            self._capture_for(serving)
            return
        # Of the model before, whose memory must be free now.
        self._observer.collect(self._observer.held)
        self._close()
        self._open(None)

    def _open(self, before: _Window | None) -> None:
        serving = self._slot.current
        self._metrics.peak = self._metrics.active
        self._observer.engine = serving.engine if serving else None
        window = _Window(serving, *self._ended, self._slot.swaps)
        goes_on = before is not None and _is_same_model(before.serving, serving)
        if before is not None and goes_on:
            window.watch, window.learner, window.is_learned = before.watch, before.learner, before.is_learned
        elif serving is not None:
            self._begin_to_watch(window, serving)
        self._window = window
        if not goes_on:
            self._observer.every = self._every(window)
        self._capture_for(serving)

    def _capture_for(self, serving: Serving | None) -> None:
        wanted = serving is not None and self._captures is not None
        self._observer.capture_rate = serving.monitor.capture_rate if serving and wanted else 0.0

    def _begin_to_watch(self, window: _Window, serving: Serving) -> None:
        if self._config.telemetry_cpu_share <= 0:
            return
        baseline = _baseline_beside(serving.folder)
        if baseline is None and self._learned is not None:
            baseline = self._learned.find(serving.digest)
            window.is_learned = baseline is not None
            if baseline is None and self._config.telemetry_learn > 0:
                window.learner = Learner(
                    self._config.telemetry_learn,
                    columns=[column.name for column in serving.interface.columns],
                    labels=serving.interface.labels,
                )
        if baseline is not None:
            window.watch = Watch(baseline, serving.interface.labels)

    def _close(self) -> None:
        window, self._window = self._window, None
        if window is None:
            return
        # What waits is looked at in the next window.
        self._ended = (self._metrics.counted(), self._observer.seen - self._observer.held)
        counted, seen = self._ended[0].since(window.counted), self._ended[1] - window.seen
        requests = Requests(**counted.requests)
        if window.serving is None and requests.total == 0:
            return
        seconds = window.age_s()
        watch = window.watch
        features: tuple[SketchRecord, ...] = ()
        baseline, left_out = "", 0
        if watch is not None:
            baseline, left_out = watch.baseline.digest, watch.left_out
            try:
                features = watch.close(seconds)
            except Exception:
                # The counts of the requests are right in any case.
                logger.exception("a window goes without its features")
                window.watch = Watch(
                    watch.baseline, window.serving.interface.labels if window.serving else ()
                )
        end = datetime.now(UTC)
        serving = window.serving
        self._closed.append(
            TelemetryWindow(
                boot="",
                seq=0,
                start=end - timedelta(seconds=seconds),
                end=end,
                digest=serving.digest if serving else "",
                model=serving.model.name if serving else "",
                version=serving.model.version if serving else "",
                deployment=serving.deployment if serving else "",
                execution=serving.execution if serving else "",
                seconds=round(seconds, 3),
                requests=requests,
                latency=Latency(counts=counted.buckets, sum_s=counted.seconds)
                if requests.total
                else Latency(),
                resources=self._resources.read(queue_peak=self._metrics.peak),
                swaps=self._slot.swaps - window.swaps,
                baseline=baseline,
                is_learned=window.is_learned,
                observed=window.observed,
                unobserved=max(seen - window.observed, 0),
                left_out=left_out,
                features=features,
            )
        )

    # Looking at requests.

    def _fold(self) -> None:
        begin = time.thread_time()
        # What comes meanwhile waits for the next turn.
        folded = self._fold_batch(self._observer.collect(self._observer.held))
        if folded:
            cost = (time.thread_time() - begin) / folded
            self._cost_s = cost if not self._cost_s else 0.7 * self._cost_s + 0.3 * cost

    def _rest(self) -> None:
        # While this thread has the interpreter the event loop stands still.
        self._turns.stopping.wait(_REST_S)

    def _fold_batch(self, taken: Sequence[Taken]) -> int:
        window = self._window
        folded = 0
        for serving, items in groupby(taken, key=lambda item: item.serving):
            if window is None or not _is_same_model(window.serving, serving):
                continue  # of the model before, whose window is closed
            try:
                for feed, outputs, count in tables(list(items)):
                    folded += count
                    self._rest()
                    window.fold(feed, outputs, self._rest)
                    window.observed += count
            except Exception:
                # Whatever a model gave: the window ends in its time and tells of the others.
                if not window.has_failed:
                    logger.exception("requests could not be looked at")
                window.has_failed = True
        if window is not None and window.learner is not None and window.learner.is_complete:
            self._learn(window, window.learner)
        return folded

    def _learn(self, window: _Window, learner: Learner) -> None:
        serving, window.learner = window.serving, None
        if serving is None or self._learned is None:
            return
        try:
            baseline = self._learned.keep(serving.digest, learner.baseline())
        except errors.ContractError as error:
            logger.error("no baseline could be learned for %s: %s", serving.model.name, error)
            return
        logger.info(
            "%s came without a baseline: its first %d requests here are one now",
            serving.model.name,
            self._config.telemetry_learn,
        )
        window.watch, window.is_learned = Watch(baseline, serving.interface.labels), True

    def _every(self, window: _Window) -> int:
        """So that looking takes its share of one core and no more."""
        if window.watch is None and window.learner is None:
            return 0
        affordable = self._config.telemetry_cpu_share / self._cost_s if self._cost_s else 100.0
        return min(max(math.ceil(self._rate / affordable), 1), _MOST_EVERY)

    def _measure_rate(self) -> None:
        """How many requests came a second lately; of long ago they say nothing."""
        now = time.monotonic()
        seen, moment = self._measured
        if now - moment >= _TURN_S / 2:
            self._rate = (self._observer.seen - seen) / (now - moment)
            self._measured = (self._observer.seen, now)

    def _set_every(self) -> None:
        window = self._window
        if window is not None:
            self._observer.every = self._every(window)


class _Window:
    """The window that is open."""

    def __init__(self, serving: Serving | None, counted: Counted, seen: int, swaps: int) -> None:
        self.serving = serving
        self.counted = counted
        self.seen = seen
        self.swaps = swaps
        self.observed = 0
        self.watch: Watch | None = None
        self.learner: Learner | None = None
        self.is_learned = False
        self.has_failed = False
        self._begun = time.monotonic()

    def fold(
        self, feed: Mapping[str, Any], outputs: Mapping[str, Any], between: Callable[[], object]
    ) -> None:
        """Look at these rows; `between` is called after each feature."""
        if self.watch is not None:
            self.watch.fold(feed, outputs, between)
        elif self.learner is not None:
            self.learner.fold(feed, outputs)

    def age_s(self) -> float:
        return time.monotonic() - self._begun


def _is_same_model(one: Serving | None, two: Serving | None) -> bool:
    return one is two or (one is not None and two is not None and one.engine is two.engine)


def _baseline_beside(folder: Path | None) -> Baseline | None:
    for path in [folder / place for place in _PLACES] if folder is not None else []:
        try:
            with path.open("rb") as file:
                return baseline_file.parse(file.read(baseline_file.MAX_BYTES + 1))
        except FileNotFoundError:
            continue
        except (OSError, errors.ContractError) as error:
            logger.error("drift of this model is not watched: %s", error)
            return None
    return None
