"""The part of the typed client that looks at a fleet as a whole, and at the server itself."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec

from edgeflow_mlflow.api import records
from edgeflow_mlflow.client_calls import Calls
from edgeflow_mlflow.notebook import Rows


class OverviewCalls(Calls):
    """A fleet at a glance."""

    def health(self) -> records.Health:
        """Whether the server answers, and its version."""
        return self._call("GET", "/health", records.Health)

    def openapi(self) -> dict[str, Any]:
        """The document that describes the API."""
        found: dict[str, Any] = msgspec.json.decode(self._text("/openapi.json"))
        return found

    def overview(self, selector: str = "") -> records.Overview:
        """Targets counted by how they are and by what they serve."""
        return self._call("GET", f"/overview?{urlencode({'selector': selector})}", records.Overview)

    def glance(
        self, *, selector: str = "", flag: str = "", model: str = "", version: str = ""
    ) -> Rows[records.Glance]:
        """Targets in short; `flag` is online, offline, stale, failing, drifting, updating, behind or held."""
        query = {"selector": selector, "flag": flag, "model": model, "version": version}
        return self._all("/overview/targets", records.GlanceList, lambda page: page.targets, query)

    def preview_rollout(self, body: records.PreviewRequest) -> records.Preview:
        """Who would get a rollout in which wave."""
        return self._call("POST", "/overview/rollout", records.Preview, body)

    def metrics(self) -> str:
        """The server's figures in Prometheus' form."""
        return self._text("/metrics")

    def device_metrics(self) -> str:
        """The figures of every device in Prometheus' form."""
        return self._text("/metrics/devices")
