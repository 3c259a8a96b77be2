"""What Prometheus reads: as open as the other routes that only read."""

from __future__ import annotations

from collections.abc import Sequence

from edgeflow_mlflow import errors
from edgeflow_mlflow.api.routing import Call, Policy, Raw, Route
from edgeflow_mlflow.domain import exposition
from edgeflow_mlflow.services import metrics


def _page(found: Sequence[exposition.Metric]) -> Raw:
    return Raw(body=exposition.render(found).encode(), media_type=exposition.MEDIA_TYPE)


def fleet_wide(call: Call) -> Raw:
    """Counts over the whole fleet."""
    return _page(metrics.fleet_wide(call.state))


def of_devices(call: Call) -> Raw:
    """Series for each device."""
    if not call.state.config["monitoring.devices"]:
        raise errors.NotFoundError(
            "series for each device are switched off, because Prometheus pays for each of them: set "
            "[monitoring] devices = true (EDGEFLOW_MONITORING_DEVICES=true)"
        )
    return _page(metrics.of_devices(call.state))


ROUTES = (
    Route(
        method="GET",
        rule="/metrics",
        policy=Policy.READ,
        handler=fleet_wide,
        summary="Counts over the whole fleet, for Prometheus",
        media_type=exposition.MEDIA_TYPE,
        errors=(401, 403),
    ),
    Route(
        method="GET",
        rule="/metrics/devices",
        policy=Policy.READ,
        handler=of_devices,
        summary="Series for each device, for Prometheus",
        media_type=exposition.MEDIA_TYPE,
        errors=(401, 403, 404),
    ),
)
