"""From the body of a request to its answer: where a run takes place, who waits, and who is refused."""

from __future__ import annotations

import asyncio
import collections
import functools
import math
import os
import time

from edgeflow_agent.inference import engine
from edgeflow_agent.inference.deadline import Deadline
from edgeflow_agent.inference.job import Job
from edgeflow_agent.inference.messages import Deliver, Request, Response
from edgeflow_agent.inference.metrics import Metrics
from edgeflow_agent.inference.observing import Observer
from edgeflow_agent.inference.protocols.asked import Read
from edgeflow_agent.inference.refusals import refusal
from edgeflow_agent.inference.slot import Slot
from edgeflow_agent.inference.together import Together
from edgeflow_agent.inference.workers import Workers

# Handing a run to a thread costs about as much as a run of this length.
_INLINE_BELOW_S = 300e-6
_INLINE_MAX_BODY = 64 * 1024
# A run that nothing can stop (one long operator) is answered for this long after its deadline.
_GRACE_S = 0.25


class _Waiting:
    """A caller whose request is in a thread, or on its way there."""

    __slots__ = ("due", "handle", "is_answered", "job")

    def __init__(self, job: Job, due: float) -> None:
        self.job = job
        self.due = due  # by the clock of the loop
        self.handle = engine.RunHandle()
        self.is_answered = False

    def answer(self, response: Response) -> None:
        """The first answer counts."""
        if not self.is_answered:
            self.is_answered = True
            self.job.deliver(response)


class Predictor:
    """Answers inference requests of every protocol. Everything but the work on a body and the run itself
    happens on the event loop."""

    def __init__(
        self,
        slot: Slot,
        metrics: Metrics,
        observer: Observer,
        loop: asyncio.AbstractEventLoop,
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
        self._loop = loop
        self._deadline = Deadline(timeout_s)
        self._together = Together[Job](loop, (Job.read, self._run_here, Job.write, self._deliver))
        self._in_threads = 0
        self._late: collections.deque[_Waiting] = collections.deque()  # in the order of their deadlines
        self._alarm: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """End the threads; runs in work end by themselves."""
        self._deadline.stop()
        self._workers.close()

    def infer(self, read: Read, request: Request, deliver: Deliver) -> Response | None:
        """The answer to a request that `read` understands, or None when `deliver` will be called with it."""
        begin = time.perf_counter()
        serving = self._slot.current
        if serving is None:
            self._metrics.answered("no_model", 0.0)
            text = "no model is deployed on this device yet"
            return refusal(request.path, 503, "no_model", text, b"Retry-After: 5\r\n")
        job = Job(read, request, serving, deliver, self._max_body, begin)
        if (
            serving.stats.run_s < _INLINE_BELOW_S
            and len(request.body) <= _INLINE_MAX_BODY
            # A small body may unpack to a large one, and an image takes longer to decode than its size tells.
            and b"content-encoding" not in request.headers
            and (serving.steps is None or not serving.steps.takes_image)
        ):
            if self._together.add(job):
                return None
            job.read()
            self._run_here(job)
            job.write()
            return self._account(job)
        workers = min(serving.runtime.max_concurrent or self._most, self._most)
        if self._in_threads >= workers + self._queue:
            self._metrics.answered("rejected", 0.0)
            return self._full(job, workers)
        self._in_thread(job)
        return None

    def _run_here(self, job: Job) -> None:
        job.run(self._deadline.begin())
        self._deadline.end()

    def _deliver(self, job: Job) -> None:
        job.deliver(self._account(job))

    def _full(self, job: Job, workers: int) -> Response:
        wait = max(1, math.ceil(self._in_threads * job.serving.stats.run_s / workers))
        return refusal(
            job.request.path,
            429,
            "queue_full",
            f"{self._in_threads} requests are in work or waiting; try again in {wait} s",
            b"Retry-After: %d\r\n" % wait,
        )

    def _in_thread(self, job: Job) -> None:
        loop = self._loop
        waiting = _Waiting(job, loop.time() + self._timeout_s)
        self._in_threads += 1
        self._metrics.active += 1
        self._metrics.peak = max(self._metrics.peak, self._metrics.active)
        job.serving.stats.active += 1
        self._late.append(waiting)
        if self._alarm is None:
            self._alarm = loop.call_at(waiting.due, self._ring)
        run = functools.partial(self._run, job, waiting.handle)
        self._workers.submit(run, functools.partial(self._finished, waiting), loop)

    def _finished(self, waiting: _Waiting, done: bool | None) -> None:
        job = waiting.job
        self._in_threads -= 1
        self._metrics.active -= 1
        job.serving.stats.active -= 1
        if done:
            waiting.answer(self._account(job))
        else:
            waiting.answer(refusal(job.request.path, 503, "stopping", "the agent is stopping"))
        while self._late and self._late[0].is_answered:
            self._late.popleft()

    def _ring(self) -> None:
        """The first deadline has come. All wait equally long, so who came first is late first."""
        now = self._loop.time()
        while self._late and (self._late[0].is_answered or self._late[0].due <= now):
            late = self._late.popleft()
            if not late.is_answered:
                # Still queued or still running: it stops where it can, and its caller waits no longer.
                late.handle.terminate()
                self._loop.call_later(_GRACE_S, late.answer, self._too_late(late.job.request.path))
        self._alarm = self._loop.call_at(self._late[0].due, self._ring) if self._late else None

    def _run(self, job: Job, handle: engine.RunHandle) -> bool:
        """In a thread."""
        if handle.terminated:
            job.status, job.response = "deadline", self._too_late(job.request.path)
        else:
            job.read()
            job.run(handle, in_worker=True)
            job.write()
        return True

    def _too_late(self, path: bytes) -> Response:
        return refusal(path, 504, "deadline", f"no answer within {self._timeout_s:g} s (serve.timeout_s)")

    def _account(self, job: Job) -> Response:
        if job.run_s >= 0:
            job.serving.stats.ran(job.run_s, own_s=job.own_s, failed=job.failed, non_finite=job.non_finite)
            if job.asked is not None and not job.failed:
                self._observer.take(job.serving, job.asked.feed, job.outputs)
        self._metrics.answered(job.status, time.perf_counter() - job.begin)
        assert job.response is not None
        return job.response
