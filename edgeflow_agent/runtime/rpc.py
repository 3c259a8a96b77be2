"""Questions that come over MQTT: remote prediction and diagnosis."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgeflow_agent import errors, typed, version
from edgeflow_agent.inference import engine
from edgeflow_agent.inference.messages import Response
from edgeflow_agent.inference.refusals import refusal
from edgeflow_agent.runtime.serving import ServingThread
from edgeflow_agent.store.captures import CaptureStore
from edgeflow_agent.store.spool import Spool
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import Report, RpcRequest, RpcResponse

logger = logging.getLogger(__name__)

METHODS = ("predict", "diagnose", "captures", "capture")
_MOST_LISTED = 500
_PIECE = 128 * 1024


class CapturePart(msgspec.Struct, frozen=True, kw_only=True):
    """Which capture, and from which byte of its JSON on."""

    id: str
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0


class Rpc:
    """Answers the questions of `METHODS`. `answer` never blocks for long; `send` is called with the
    response."""

    def __init__(
        self,
        serving: ServingThread,
        spool: Spool[Report],
        captures: CaptureStore,
        state_dir: Path,
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        self._serving = serving
        self._spool = spool
        self._captures = captures
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
        elif request.method == "captures":
            reply(_page(self._captures.listed(limit=_MOST_LISTED)))
        elif request.method == "capture":
            reply(self._capture(bytes(request.body)))
        else:
            text = f"unknown method {request.method!r}; known: {', '.join(METHODS)}"
            reply(refusal(b"", 404, "method", text))

    def _capture(self, body: bytes) -> Response:
        """A part of one capture: more than a message holds is asked for in pieces."""
        try:
            part = typed.read(CapturePart, body)
            content = self._captures.content(part.id)
        except msgspec.MsgspecError as error:
            return refusal(b"", 400, "bad_input", f"not a part of a capture: {error}")
        except errors.StateError as error:
            return refusal(b"", 404, error.reason, str(error))
        piece = content[part.offset : part.offset + _PIECE]
        return _page({"size": len(content), "piece": piece})

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


def _page(value: Any) -> Response:
    return Response(200, msgspec.json.encode(value))


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
