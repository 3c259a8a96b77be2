"""From the body of a request to its answer: where a run takes place, who waits, and who is refused."""

from __future__ import annotations

import asyncio
import collections
import functools
import logging
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.inference import compression, engine, finite
from edgeflow_agent.inference.messages import Deliver, Request, Response
from edgeflow_agent.inference.metrics import Metrics
from edgeflow_agent.inference.observing import Observer
from edgeflow_agent.inference.protocols.asked import Read
from edgeflow_agent.inference.refusals import refusal, refused
from edgeflow_agent.inference.slot import Serving, Slot
from edgeflow_agent.inference.workers import Workers

logger = logging.getLogger(__name__)

# Handing a run to a thread costs about as much as a run of this length.
_INLINE_BELOW_S = 300e-6
_INLINE_MAX_BODY = 64 * 1024
# A run that nothing can stop (one long operator) is answered for this long after its deadline.
_GRACE_S = 0.25


class _Outcome(msgspec.Struct, frozen=True, gc=False):
    response: Response
    status: str
    run_s: float  # negative: the model was not run
    failed: bool = False
    own_s: float = 0.0  # the run without waiting for other threads
    non_finite: bool = False  # on trial: the outputs hold a NaN or an infinity
    feed: Mapping[str, Any] | None = None  # what the model took and gave, when it did
    outputs: Sequence[Any] = ()


class _Call(msgspec.Struct, frozen=True, gc=False):
    """One request on its way to the model that serves it."""

    read: Read
    request: Request
    serving: Serving
    max_body: int
    begin: float


class _Waiting:
    """A caller whose request is in a thread, or on its way there."""

    __slots__ = ("_deliver", "call", "due", "handle")

    def __init__(self, call: _Call, deliver: Deliver, due: float) -> None:
        self.call = call
        self.due = due  # by the clock of the loop
        self.handle = engine.RunHandle()
        self._deliver: Deliver | None = deliver

    @property
    def is_answered(self) -> bool:
        """Whether the caller has got what it will get."""
        return self._deliver is None

    def answer(self, response: Response) -> None:
        """The first answer counts."""
        deliver, self._deliver = self._deliver, None
        if deliver is not None:
            deliver(response)


class _Watch:
    """Stops a run in the event loop at its deadline: the loop itself cannot, it is running it."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._running: tuple[float, engine.RunHandle] | None = None
        self._handle = engine.RunHandle()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edgeflow-deadline", daemon=True)
        self._thread.start()

    def begin(self, now: float) -> engine.RunHandle:
        """A handle for the run that starts now, by the clock of `time.perf_counter`."""
        if self._handle.terminated:
            self._handle = engine.RunHandle()
        self._running = (now, self._handle)
        return self._handle

    def end(self) -> None:
        """The run is over."""
        self._running = None

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(min(0.25, self._timeout_s / 2)):
            running = self._running
            if running is None or time.perf_counter() - running[0] < self._timeout_s:
                continue
            # Looked at again, so that the next run, which shares the handle, is rarely hit; if it is, its
            # caller gets a 504 and the handle is replaced.
            if self._running is running:
                running[1].terminate()


class Predictor:
    """Answers inference requests of every protocol. Everything but the work on a body and the run itself
    happens on the event loop."""

    def __init__(
        self,
        slot: Slot,
        metrics: Metrics,
        observer: Observer,
        *,
        timeout_s: float = 30.0,
        queue: int = 64,
        max_concurrent: int = 0,
        max_body: int = 32 * 1024 * 1024,
    ) -> None:
        self._slot = slot
        self._metrics = metrics
        self._observer = observer
        self._timeout_s = timeout_s
        self._queue = queue
        self._max_body = max_body
        self._most = max_concurrent or os.cpu_count() or 1
        self._workers = Workers(self._most)
        self._watch = _Watch(timeout_s)
        self._in_threads = 0
        self._late: collections.deque[_Waiting] = collections.deque()  # in the order of their deadlines
        self._alarm: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """End the threads; runs in work end by themselves."""
        self._watch.stop()
        self._workers.close()

    def infer(self, read: Read, request: Request, deliver: Deliver) -> Response | None:
        """The answer to a request that `read` understands, or None when `deliver` will be called with it."""
        begin = time.perf_counter()
        serving = self._slot.current
        if serving is None:
            self._metrics.answered("no_model", 0.0)
            text = "no model is deployed on this device yet"
            return refusal(request.path, 503, "no_model", text, b"Retry-After: 5\r\n")
        call = _Call(read, request, serving, self._max_body, begin)
        if (
            serving.stats.run_s < _INLINE_BELOW_S
            and len(request.body) <= _INLINE_MAX_BODY
            # A small body may unpack to a large one, and an image takes longer to decode than its size tells.
            and b"content-encoding" not in request.headers
            and (serving.steps is None or not serving.steps.takes_image)
        ):
            handle = self._watch.begin(begin)
            try:
                outcome = _answer(call, handle, in_worker=False)
            finally:
                self._watch.end()
            return self._account(call, outcome)
        workers = min(serving.runtime.max_concurrent or self._most, self._most)
        if self._in_threads >= workers + self._queue:
            self._metrics.answered("rejected", 0.0)
            return self._full(call, workers)
        self._in_thread(call, deliver)
        return None

    def _full(self, call: _Call, workers: int) -> Response:
        wait = max(1, math.ceil(self._in_threads * call.serving.stats.run_s / workers))
        return refusal(
            call.request.path,
            429,
            "queue_full",
            f"{self._in_threads} requests are in work or waiting; try again in {wait} s",
            b"Retry-After: %d\r\n" % wait,
        )

    def _in_thread(self, call: _Call, deliver: Deliver) -> None:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(call, deliver, loop.time() + self._timeout_s)
        self._in_threads += 1
        self._metrics.active += 1
        self._metrics.peak = max(self._metrics.peak, self._metrics.active)
        call.serving.stats.active += 1
        self._late.append(waiting)
        if self._alarm is None:
            self._alarm = loop.call_at(waiting.due, self._ring, loop)
        run = functools.partial(self._run, call, waiting.handle)
        self._workers.submit(run, functools.partial(self._finished, waiting), loop)

    def _finished(self, waiting: _Waiting, outcome: _Outcome | None) -> None:
        call = waiting.call
        self._in_threads -= 1
        self._metrics.active -= 1
        call.serving.stats.active -= 1
        if outcome is None:
            waiting.answer(refusal(call.request.path, 503, "stopping", "the agent is stopping"))
        else:
            waiting.answer(self._account(call, outcome))
        while self._late and self._late[0].is_answered:
            self._late.popleft()

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """The first deadline has come. All wait equally long, so who came first is late first."""
        now = loop.time()
        while self._late and (self._late[0].is_answered or self._late[0].due <= now):
            late = self._late.popleft()
            if not late.is_answered:
                # Still queued or still running: it stops where it can, and its caller waits no longer.
                late.handle.terminate()
                loop.call_later(_GRACE_S, late.answer, self._too_late(late.call.request.path))
        self._alarm = loop.call_at(self._late[0].due, self._ring, loop) if self._late else None

    def _run(self, call: _Call, handle: engine.RunHandle) -> _Outcome:
        if handle.terminated:
            return _Outcome(self._too_late(call.request.path), "deadline", -1.0)
        return _answer(call, handle, in_worker=True)

    def _too_late(self, path: bytes) -> Response:
        return refusal(path, 504, "deadline", f"no answer within {self._timeout_s:g} s (serve.timeout_s)")

    def _account(self, call: _Call, outcome: _Outcome) -> Response:
        if outcome.run_s >= 0:
            own_s = outcome.own_s or outcome.run_s
            call.serving.stats.ran(
                outcome.run_s, own_s=own_s, failed=outcome.failed, non_finite=outcome.non_finite
            )
            if outcome.feed is not None:
                self._observer.take(call.serving, outcome.feed, outcome.outputs)
        self._metrics.answered(outcome.status, time.perf_counter() - call.begin)
        return outcome.response


def _answer(call: _Call, handle: engine.RunHandle, *, in_worker: bool) -> _Outcome:
    """One inference, errors included. Thread-safe."""
    request, serving = call.request, call.serving
    begin = 0.0
    try:
        if b"content-encoding" in request.headers:
            request = msgspec.structs.replace(request, body=compression.unpacked(request, call.max_body))
        asked = call.read(request, serving)
        # A worker that waits for the interpreter does not run: its own time tells whether the model is
        # fast. On another device than the processor only the clock on the wall tells anything.
        by_own_time = in_worker and serving.engine.on_cpu
        begin, own = time.perf_counter(), time.thread_time() if by_own_time else 0.0
        outputs = serving.engine.run(asked.feed, handle)
        run_s = time.perf_counter() - begin
        own_s = time.thread_time() - own if by_own_time else run_s
        response = asked.answer(outputs)
        if b"accept-encoding" in request.headers:
            response = compression.packed(response, request.headers[b"accept-encoding"])
        non_finite = serving.stats.on_trial and not finite.all_finite(outputs)
        return _Outcome(
            response, "ok", run_s, own_s=own_s, non_finite=non_finite, feed=asked.feed, outputs=outputs
        )
    except errors.InputError as error:
        return _Outcome(refused(request.path, error), "bad_input", -1.0)
    except engine.RunTerminatedError as error:
        response = refusal(request.path, 504, error.reason, str(error))
        return _Outcome(response, "deadline", time.perf_counter() - begin, failed=True)
    except errors.ModelError as error:
        response = refusal(request.path, 500, "model_failed", str(error))
        return _Outcome(response, "error", time.perf_counter() - begin, failed=True)
    except Exception:
        # The boundary of what others sent: whatever a strange body or model did, the agent goes on.
        logger.exception("an inference ended in an unexpected way")
        return _Outcome(_broken(request.path), "error", 0.0, failed=begin > 0)


def _broken(path: bytes) -> Response:
    return refusal(path, 500, "internal", "the inference failed; see the agent's log")
