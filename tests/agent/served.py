"""A device's HTTP server in this process, whose model a test exchanges."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeflow_agent.inference import slot
from edgeflow_agent.runtime.serving import ServingThread
from edgeflow_agent.wire.documents import Interface, ModelRef
from tests.agent.conftest import settings


class Served(ServingThread):
    """Starts with the test, stops with its `with`."""

    def __init__(self, tmp_path: Path, **changes: Any) -> None:
        self.slot = slot.Slot()
        self._path = tmp_path / "served.onnx"
        super().__init__(settings(tmp_path, **changes), self.slot)

    def __enter__(self) -> Served:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def load(
        self, data: bytes, *, name: str = "m", version: str = "1", declared: Interface | None = None
    ) -> slot.Serving:
        """Let this model answer."""
        self._path.write_bytes(data)
        serving = slot.load(
            self._path,
            model=ModelRef(name=name, version=version),
            declared=declared or Interface(),
            threads=1,
        )
        self.slot.swap(serving)
        self.slot.previous = None
        return serving


def receive(connection: asyncio.BufferedProtocol, data: bytes) -> None:
    """What a transport does with bytes that have come."""
    while data:
        place = connection.get_buffer(-1)
        count = min(len(place), len(data))
        place[:count] = data[:count]
        connection.buffer_updated(count)
        data = data[count:]


class Client:
    """One connection that stays."""

    def __init__(self, served: Served) -> None:
        self._connection = http.client.HTTPConnection(served.address, timeout=30)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body."""
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        return response.status, response.headers, response.read()

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        return self.ask(
            "POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
