"""One inference, from the body of a request to its answer, in three steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.inference import compression, engine, finite
from edgeflow_agent.inference.messages import Deliver, Request, Response
from edgeflow_agent.inference.protocols.asked import Asked, Read
from edgeflow_agent.inference.refusals import refusal, refused
from edgeflow_agent.inference.slot import Serving

logger = logging.getLogger(__name__)


class Job(msgspec.Struct, gc=False):
    """`read`, `run` and `write`, in this order. None of them raises: what goes wrong becomes the `response`,
    and the steps after it do nothing. One thread at a time."""

    reads: Read
    request: Request
    serving: Serving
    deliver: Deliver
    max_body: int
    begin: float  # by the clock of time.perf_counter

    asked: Asked | None = None
    outputs: Sequence[Any] = ()
    response: Response | None = None
    status: str = "ok"
    run_s: float = -1.0  # negative: the model was not run
    own_s: float = 0.0  # the run without waiting for other threads
    failed: bool = False  # by the model
    non_finite: bool = False  # on trial: the outputs hold a NaN or an infinity

    def read(self) -> None:
        """Make the model's inputs of the body."""
        request = self.request
        try:
            if b"content-encoding" in request.headers:
                request = msgspec.structs.replace(request, body=compression.unpacked(request, self.max_body))
            self.asked = self.reads(request, self.serving)
        except Exception as error:  # noqa: BLE001 - told apart there
            self._fail(error)

    def run(self, handle: engine.RunHandle, *, in_worker: bool = False) -> None:
        """Run the model on them."""
        if self.asked is None:
            return
        run_by = self.serving.engine
        # A worker that waits for the interpreter does not run: its own time tells whether the model is
        # fast. On another device than the processor only the clock on the wall tells anything.
        by_own_time = in_worker and run_by.on_cpu
        begin, own = time.perf_counter(), time.thread_time() if by_own_time else 0.0
        try:
            self.outputs = run_by.run(self.asked.feed, handle)
        except Exception as error:  # noqa: BLE001 - told apart there
            self.run_s = self.own_s = time.perf_counter() - begin
            self._fail(error)
        else:
            self.run_s = time.perf_counter() - begin
            self.own_s = time.thread_time() - own if by_own_time else self.run_s

    def write(self) -> None:
        """Make the answer of its outputs."""
        if self.asked is None or self.response is not None:
            return
        headers = self.request.headers
        try:
            response = self.asked.answer(self.outputs)
            if b"accept-encoding" in headers:
                response = compression.packed(response, headers[b"accept-encoding"])
            self.non_finite = self.serving.stats.on_trial and not finite.all_finite(self.outputs)
            self.response = response
        except Exception as error:  # noqa: BLE001 - told apart there
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        path = self.request.path
        if isinstance(error, errors.InputError):
            self.status, self.run_s = "bad_input", -1.0
            self.response = refused(path, error)
        elif isinstance(error, engine.RunTerminatedError):
            self.status, self.failed = "deadline", True
            self.response = refusal(path, 504, error.reason, str(error))
        elif isinstance(error, errors.ModelError):
            self.status, self.failed = "error", True
            self.response = refusal(path, 500, "model_failed", str(error))
        else:
            # The boundary of what others sent: whatever a strange body or model did, the agent goes on.
            logger.error("an inference ended in an unexpected way", exc_info=error)
            self.status, self.failed = "error", self.run_s >= 0
            self.response = refusal(path, 500, "internal", "the inference failed; see the agent's log")
