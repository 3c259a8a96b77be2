"""Routes that say whether the server lives and whether deployments can reach devices."""

from __future__ import annotations

from edgeflow_agent.version import VERSION
from edgeflow_mlflow.api import records
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.services import lease


def health(_call: Call) -> records.Health:
    """This process answers."""
    return records.Health(status="ok", version=VERSION)


def ready(call: Call) -> records.Ready:
    """The database answers; whether a hub runs is told, with 200 either way: a monitor reads `hub`."""
    row = lease.current(call.state)
    if row is None:
        return records.Ready(status="no_hub", hub=False)
    detail = row.detail
    configured = call.state.config["mqtt.broker"] != "off"
    healthy = bool(detail.get("mqtt_healthy"))
    return records.Ready(
        status="ok" if healthy or not configured else "no_mqtt",
        hub=True,
        hub_holder=row.holder,
        hub_fence=row.fence,
        hub_pid=int(detail.get("pid", 0)),
        mqtt=str(detail.get("mqtt", "")),
        mqtt_healthy=healthy,
        mqtt_connected=int(detail.get("mqtt_connected", 0)),
        mqtt_error=str(detail.get("mqtt_error", "")),
    )


ROUTES = (
    Route(
        method="GET",
        rule="/health",
        policy=Policy.PUBLIC,
        handler=health,
        summary="The process answers",
        answer=records.Health,
    ),
    Route(
        method="GET",
        rule="/ready",
        policy=Policy.PUBLIC,
        handler=ready,
        summary="Whether a hub runs and MQTT is there",
        answer=records.Ready,
    ),
)
