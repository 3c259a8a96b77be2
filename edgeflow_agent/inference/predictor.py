"""From the body of a request to its answer: where a run takes place, who waits, and who is refused."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.inference import engine, tensors
from edgeflow_agent.inference.http_protocol import Deliver, Response, error_response
from edgeflow_agent.inference.metrics import Metrics
from edgeflow_agent.inference.slot import Serving, Slot

logger = logging.getLogger(__name__)

# Handing a run to a thread costs about as much as a run of this length.
_INLINE_BELOW_S = 300e-6
_INLINE_MAX_BODY = 64 * 1024
# A run that nothing can stop (one long operator) is answered for this long after its deadline.
_GRACE_S = 0.25
_NO_MODEL = error_response(
    503, "no_model", "no model is deployed on this device yet", headers=b"Retry-After: 5\r\n"
)

Done = Callable[[Response], None]


class _Outcome(NamedTuple):
    response: Response
    status: str
    run_s: float  # negative: the model was not run
    failed: bool = False
    own_s: float = 0.0  # the run without waiting for other threads


class _Watch:
    """Stops a run in the event loop at its deadline: the loop itself cannot, it is running it."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._running: tuple[float, engine.RunHandle] | None = None
        self._handle = engine.RunHandle()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edgeflow-deadline", daemon=True)
        self._thread.start()

    def begin(self) -> engine.RunHandle:
        """A handle for the run that starts now."""
        if self._handle.terminated:
            self._handle = engine.RunHandle()
        self._running = (time.monotonic(), self._handle)
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
            if running is None or time.monotonic() - running[0] < self._timeout_s:
                continue
            # Looked at again, so that the next run, which shares the handle, is rarely hit; if it is, its
            # caller gets a 504 and the handle is replaced.
            if self._running is running:
                running[1].terminate()


class Predictor:
    """Answers `POST /infer`. Everything but the run itself happens on the event loop."""

    def __init__(
        self,
        slot: Slot,
        metrics: Metrics,
        *,
        timeout_s: float = 30.0,
        queue: int = 64,
        max_concurrent: int = 0,
    ) -> None:
        self._slot = slot
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._queue = queue
        self._workers = max_concurrent or os.cpu_count() or 1
        self._executor = concurrent.futures.ThreadPoolExecutor(
            self._workers, thread_name_prefix="edgeflow-run"
        )
        self._watch = _Watch(timeout_s)
        self._in_threads = 0

    def close(self) -> None:
        """End the threads; runs in work end by themselves."""
        self._watch.stop()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def infer(self, body: bytes, deliver: Deliver) -> Response | None:
        """The answer, or None when `deliver` will be called with it."""
        begin = time.perf_counter()
        serving = self._slot.current
        if serving is None:
            self._metrics.answered("no_model", 0.0)
            return _NO_MODEL
        if serving.stats.run_s < _INLINE_BELOW_S and len(body) <= _INLINE_MAX_BODY:
            return self._inline(serving, body, begin)
        workers = min(serving.runtime.max_concurrent or self._workers, self._workers)
        if self._in_threads >= workers + self._queue:
            self._metrics.answered("rejected", 0.0)
            return self._full(serving, workers)
        self._in_thread(serving, body, deliver, begin)
        return None

    def _inline(self, serving: Serving, body: bytes, begin: float) -> Response:
        handle = self._watch.begin()
        try:
            outcome = _answer(serving, body, handle, in_worker=False)
        finally:
            self._watch.end()
        return self._account(serving, outcome, begin)

    def _full(self, serving: Serving, workers: int) -> Response:
        wait = max(1, math.ceil(self._in_threads * serving.stats.run_s / workers))
        return error_response(
            429,
            "queue_full",
            f"{self._in_threads} requests are in work or waiting; try again in {wait} s",
            headers=b"Retry-After: %d\r\n" % wait,
        )

    def _in_thread(self, serving: Serving, body: bytes, deliver: Deliver, begin: float) -> None:
        loop = asyncio.get_running_loop()
        handle = engine.RunHandle()
        self._in_threads += 1
        self._metrics.active += 1
        serving.stats.active += 1
        waiting = [deliver]

        def answer(response: Response) -> None:
            if waiting:
                waiting.pop()(response)

        def late() -> None:
            # Still queued or still running: it stops where it can, and its caller waits no longer.
            handle.terminate()
            loop.call_later(_GRACE_S, answer, _deadline_response(self._timeout_s))

        timer = loop.call_later(self._timeout_s, late)

        def finished(future: asyncio.Future[_Outcome]) -> None:
            timer.cancel()
            self._in_threads -= 1
            self._metrics.active -= 1
            serving.stats.active -= 1
            if future.cancelled():
                answer(error_response(503, "stopping", "the agent is stopping"))
                return
            try:
                outcome = future.result()
            except Exception:
                logger.exception("an inference ended in an unexpected way")
                answer(error_response(500, "internal", "the inference failed; see the agent's log"))
                return
            answer(self._account(serving, outcome, begin))

        future = loop.run_in_executor(self._executor, self._run, serving, body, handle)
        future.add_done_callback(finished)

    def _run(self, serving: Serving, body: bytes, handle: engine.RunHandle) -> _Outcome:
        if handle.terminated:
            return _Outcome(_deadline_response(self._timeout_s), "deadline", -1.0)
        return _answer(serving, body, handle, in_worker=True)

    def _account(self, serving: Serving, outcome: _Outcome, begin: float) -> Response:
        if outcome.run_s >= 0:
            serving.stats.ran(outcome.run_s, own_s=outcome.own_s or outcome.run_s, failed=outcome.failed)
        self._metrics.answered(outcome.status, time.perf_counter() - begin)
        return outcome.response


def _answer(serving: Serving, body: bytes, handle: engine.RunHandle, *, in_worker: bool) -> _Outcome:
    """One inference, errors included. Thread-safe."""
    begin = 0.0
    try:
        feed = tensors.decode(tensors.parse(body), serving.interface)
        # A worker that waits for the interpreter does not run: its own time tells whether the model is
        # fast. On another device than the processor only the clock on the wall tells anything.
        by_own_time = in_worker and serving.engine.on_cpu
        begin, own = time.perf_counter(), time.thread_time() if by_own_time else 0.0
        outputs = serving.engine.run(feed, handle)
        run_s = time.perf_counter() - begin
        own_s = time.thread_time() - own if by_own_time else run_s
        return _Outcome(Response(200, _encode(serving, outputs)), "ok", run_s, own_s=own_s)
    except errors.InputError as error:
        return _Outcome(error_response(400, error.reason, str(error)), "bad_input", -1.0)
    except engine.RunTerminatedError as error:
        response = error_response(504, error.reason, str(error))
        return _Outcome(response, "deadline", time.perf_counter() - begin, failed=True)
    except errors.ModelError as error:
        response = error_response(500, "model_failed", str(error))
        return _Outcome(response, "error", time.perf_counter() - begin, failed=True)
    except Exception:
        # The boundary of what others sent: whatever a strange body or model did, the agent goes on.
        logger.exception("an inference ended in an unexpected way")
        response = error_response(500, "internal", "the inference failed; see the agent's log")
        return _Outcome(response, "error", 0.0, failed=begin > 0)


def _encode(serving: Serving, outputs: list[Any]) -> bytes:
    answer: dict[str, Any] = {
        "outputs": {
            name: tensors.encode(value)
            for name, value in zip(serving.engine.output_names, outputs, strict=True)
        },
        "model": {"name": serving.model.name, "version": serving.model.version},
    }
    if serving.interface.labels:
        labels = tensors.predicted_labels(outputs, serving.interface.labels)
        if labels is not None:
            answer["labels"] = labels
    return msgspec.json.encode(answer)


def _deadline_response(timeout_s: float) -> Response:
    return error_response(504, "deadline", f"no answer within {timeout_s:g} s (serve.timeout_s)")
