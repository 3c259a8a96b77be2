"""Questions that come over MQTT: remote prediction and diagnosis."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edgeflow_agent import errors, version
from edgeflow_agent.inference import engine
from edgeflow_agent.inference.messages import Response
from edgeflow_agent.inference.refusals import refusal
from edgeflow_agent.runtime.serving import ServingThread
from edgeflow_agent.store.spool import Spool
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import Report, RpcRequest, RpcResponse

logger = logging.getLogger(__name__)


class Rpc:
    """Answers `predict` and `diagnose`. `answer` never blocks; `send` is called with the response."""

    def __init__(
        self,
        serving: ServingThread,
        spool: Spool[Report],
        state_dir: Path,
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        self._serving = serving
        self._spool = spool
        self._state_dir = state_dir
        self._facts = facts

    def answer(self, payload: bytes, send: Callable[[bytes], object]) -> None:
        """Answer one request; an unreadable one is logged, for nobody waits for its id."""
        try:
            request = documents.decode(RpcRequest, payload)
        except errors.ContractError as error:
            logger.warning("ignored a question: %s", error)
            return

        def reply(response: Response) -> None:
            send(_encode(request.id, response))

        if request.method == "predict":
            self._serving.predict(bytes(request.body), reply)
        elif request.method == "diagnose":
            reply(Response(200, msgspec.json.encode(self.diagnose())))
        else:
            text = f"unknown method {request.method!r}; known: predict, diagnose"
            reply(refusal(b"", 404, "method", text))

    def diagnose(self) -> dict[str, Any]:
        """What somebody far away needs to know about this device."""
        disk = shutil.disk_usage(self._state_dir)
        health = self._serving.health()
        return {
            "health": json.loads(health.body),
            "healthy": health.status == 200,
            "agent_version": version.VERSION,
            "onnxruntime_version": engine.VERSION,
            "python_version": platform.python_version(),
            "platform": platform.platform(),
            "hostname": platform.node(),
            "pid": os.getpid(),
            "load_average": list(os.getloadavg()),
            "disk": {"total": disk.total, "free": disk.free},
            "spool": {
                "boot": self._spool.boot,
                "pending": self._spool.pending_count,
                "dropped": self._spool.dropped,
            },
            **self._facts(),
        }


def _encode(request_id: str, response: Response) -> bytes:
    answer = RpcResponse(id=request_id, status=response.status, body=msgspec.Raw(response.body))
    data = documents.encode(answer)
    if len(data) > documents.MAX_MESSAGE_BYTES:
        text = f"the answer has {len(response.body)} bytes; ask the device itself over HTTP"
        answer = RpcResponse(
            id=request_id, status=413, body=msgspec.Raw(refusal(b"", 413, "answer_too_large", text).body)
        )
        data = documents.encode(answer)
    return data
