"""Routes of the devices themselves. Who asks comes from the credential, never from a path or a body."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import urlsplit

from sqlalchemy import select

from edgeflow_agent.wire import documents
from edgeflow_mlflow import errors
from edgeflow_mlflow.api import origin, records
from edgeflow_mlflow.api.publishing import restore
from edgeflow_mlflow.api.routing import Call, Policy, Raw, Route
from edgeflow_mlflow.catalog import Catalog
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import desired, enrol, ingest, lease
from edgeflow_mlflow.services.state import State

_ENVELOPE = "application/vnd.edgeflow.envelope+json"


def enroll(call: Call) -> documents.EnrolResponse:
    """Turn an enrolment token into an identity."""
    request: documents.EnrolRequest = call.body
    credential = enrol.enrol(call.state, request.token, request.target, request.idempotency_key)
    keyring = call.state.keyring
    return documents.EnrolResponse(
        target=request.target,
        credential=credential,
        fleet=keyring.fleet,
        root_key=base64.b64encode(keyring.root_key).decode(),
        trust=keyring.trust.decode(),
        mqtt=_reachable(call, mqtt_url(call.state)),
    )


def _reachable(call: Call, url: str) -> str:
    """The address, unless it means the device itself: one that came from elsewhere polls instead of
    offering its credential to whatever listens there."""
    from_here = origin.is_loopback(origin.host_name(call.headers.get("Host", "")))
    if url and not from_here and origin.is_loopback(urlsplit(url).hostname or ""):
        return ""
    return url


def mqtt_url(state: State) -> str:
    """Where devices find the broker now; empty when there is none."""
    public = str(state.config["mqtt.public_url"])
    broker = str(state.config["mqtt.broker"])
    if public or broker == "off":
        return public
    if broker != "embedded":
        # An external broker's URL holds the server's own password.
        parts = urlsplit(broker)
        return (
            f"{parts.scheme}://{parts.hostname}:{parts.port or (8883 if parts.scheme == 'mqtts' else 1883)}"
        )
    row = lease.current(state)
    return "" if row is None else str(row.detail.get("mqtt", ""))


def session(call: Call) -> documents.Session:
    """Where and how often the device should talk."""
    config = call.state.config
    return documents.Session(
        target=call.actor.target,
        fleet=call.state.keyring.fleet,
        mqtt=_reachable(call, mqtt_url(call.state)),
        trust_version=call.state.keyring.trust_version,
        heartbeat_s=config["devices.heartbeat_s"],
        poll_s=config["devices.poll_s"],
        slow_poll_s=config["devices.slow_poll_s"],
        # An external broker keeps the devices' passwords, and nobody tells it of new ones.
        rotate=config["mqtt.broker"] in ("embedded", "off"),
    )


def trust(call: Call) -> Raw:
    """The keys that may sign desired documents."""
    return Raw(body=call.state.keyring.trust, media_type=_ENVELOPE)


def wanted(call: Call) -> Raw:
    """The device's desired document: the same bytes that MQTT carries."""
    floor = call.headers.get("X-Edgeflow-Generation", "0")
    if not floor.isascii() or not floor.isdigit() or len(floor) > 16:
        raise errors.InvalidError("X-Edgeflow-Generation is the highest generation that was handled")
    target = _target(call, int(floor))
    if target.document is None:
        return Raw(status=204)
    etag = f'"{target.generation}.{hashlib.sha256(target.document).hexdigest()[:16]}"'
    if target.published_generation < target.generation:
        ingest.offered(call.state, {target.id: target.generation})
    if etag in [item.strip() for item in call.headers.get("If-None-Match", "").split(",")]:
        return Raw(status=304, headers={"ETag": etag})
    return Raw(
        body=target.document, media_type=_ENVELOPE, headers={"ETag": etag, "Cache-Control": "no-store"}
    )


def _target(call: Call, floor: int) -> models.Target:
    with call.state.database.read() as reading:
        target = reading.get_one(models.Target, call.actor.target)
    if floor <= target.generation:
        return target
    with call.state.database.write() as writing:
        target = writing.get_one(models.Target, call.actor.target)
        desired.raise_floor(call.state, writing, target, floor)
    return target


def reports(call: Call) -> documents.ReportsResponse:
    """Take reports and presence from a device without MQTT; answers with what is committed."""
    request: documents.ReportsRequest = call.body
    if len(request.reports) > ingest.MAX_REPORTS:
        raise errors.InvalidError(f"at most {ingest.MAX_REPORTS} reports at once")
    stored = ingest.reports(call.state, call.actor.target, request.reports)
    if request.presence is not None:
        ingest.presence(call.state, call.actor.target, request.presence, connected=None)
    return documents.ReportsResponse(stored=stored)


def blob(call: Call) -> Raw:
    """A file of a model that this device is to have, or has."""
    path = find_blob(call.state, call.catalog, call.actor.target, call.path["sha256"])
    return Raw(file=path, media_type="application/octet-stream", etag=call.path["sha256"])


def find_blob(state: State, catalog: Catalog, target_id: str, sha256: str) -> str:
    """The file, if one of the target's executions lists it. Another target's digest and an unknown one
    get the same answer."""
    path = state.blobs.path(sha256)
    with state.database.read() as reading:
        given = (
            select(models.Rollout.bundle_id)
            .join(models.Execution, models.Execution.rollout_id == models.Rollout.id)
            .where(models.Execution.target_id == target_id)
        )
        bundles = reading.scalars(select(models.Bundle).where(models.Bundle.id.in_(given))).all()
    for bundle in bundles:
        if any(item["sha256"] == sha256 for item in bundle.files):
            if not path.is_file():
                restore(state, catalog, bundle)
            if path.is_file():
                return str(path)
    raise errors.NotFoundError("no such file for this target")


def rotate(call: Call) -> records.Rotated:
    """A new credential; the one in use dies when the new one is first used."""
    return records.Rotated(credential=enrol.rotate(call.state, call.actor.target, call.actor.credential))


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="POST",
        rule="/enroll",
        policy=Policy.PUBLIC,
        handler=enroll,
        summary="Turn an enrolment token into a device identity",
        body=documents.EnrolRequest,
        answer=documents.EnrolResponse,
        errors=(401, 403, 409),
    ),
    Route(
        method="GET",
        rule="/device/session",
        policy=Policy.DEVICE,
        handler=session,
        summary="Where and how often to talk",
        answer=documents.Session,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/device/trust",
        policy=Policy.DEVICE,
        handler=trust,
        summary="The signed trust document",
        media_type=_ENVELOPE,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/device/desired",
        policy=Policy.DEVICE,
        handler=wanted,
        summary="The signed desired document",
        media_type=_ENVELOPE,
        other_statuses=(204, 304),
        errors=_REFUSED,
    ),
    Route(
        method="POST",
        rule="/device/reports",
        policy=Policy.DEVICE,
        handler=reports,
        summary="Reports and presence; answers with what is stored",
        body=documents.ReportsRequest,
        answer=documents.ReportsResponse,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/device/blobs/<sha256>",
        policy=Policy.DEVICE,
        handler=blob,
        summary="A file of a model, with Range",
        media_type="application/octet-stream",
        other_statuses=(206, 304, 416),
        errors=(*_REFUSED, 404, 429),
    ),
    Route(
        method="POST",
        rule="/device/rotate",
        policy=Policy.DEVICE,
        handler=rotate,
        summary="A new credential for this device",
        body=records.Empty,
        answer=records.Rotated,
        errors=_REFUSED,
    ),
)
