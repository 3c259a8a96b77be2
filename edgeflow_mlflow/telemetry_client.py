"""The calls of the client that ask for telemetry and drift."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from edgeflow_mlflow.api import records
from edgeflow_mlflow.client_calls import Calls


class TelemetryCalls(Calls):
    """A part of `client.Client`, which knows how to call."""

    def telemetry(self, **query: str) -> records.TelemetryView:
        """What devices have counted over time: `target`, `fleet`, `deployment`, `model` and `version` say
        whose, `start` and `end` (RFC 3339) when, `step` in seconds how fine."""
        return self._call("GET", f"/telemetry?{_words(query)}", records.TelemetryView)

    def refused_telemetry(self, target: str = "") -> list[records.RefusalView]:
        """What devices have sent that was refused, by reason."""
        query = {"target": target}
        return self._all("/telemetry/refused", records.RefusalList, lambda page: page.refusals, query)

    def drift(
        self,
        *,
        scope: str = "",
        target: str = "",
        fleet: str = "",
        model: str = "",
        version: str = "",
        status: str = "",
        alarms: bool = False,
    ) -> list[records.DriftView]:
        """The newest verdicts on features, alarms first."""
        query = {
            "scope": scope,
            "target": target,
            "fleet": fleet,
            "model": model,
            "version": version,
            "status": status,
            "alarms": "true" if alarms else "",
        }
        return self._all("/drift", records.DriftList, lambda page: page.verdicts, query)

    def drift_report(self, **query: str) -> records.DriftReport:
        """Every statistic of every feature of a `target`, `fleet`, or `model` and `version`, from `start` to
        `end` (RFC 3339)."""
        return self._call("GET", f"/drift/report?{_words(query)}", records.DriftReport)

    def thresholds(self, model: str, version: str) -> records.ThresholdsView:
        """From when on a model version counts as drifted."""
        return self._call("GET", _thresholds(model, version), records.ThresholdsView)

    def put_thresholds(
        self, model: str, version: str, body: records.ThresholdsChange
    ) -> records.ThresholdsView:
        """Set from when on a model version counts as drifted."""
        return self._call("PUT", _thresholds(model, version), records.ThresholdsView, body)


def _words(query: dict[str, str]) -> str:
    # `from` is no name that Python lets an argument have.
    names = {"start": "from", "end": "to"}
    return urlencode({names.get(name, name): value for name, value in query.items() if value})


def _thresholds(model: str, version: str) -> str:
    return f"/models/{quote(model, safe='')}/versions/{quote(version, safe='')}/thresholds"
