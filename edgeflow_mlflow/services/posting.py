"""Send one notification over HTTP: signed, to a checked address, without following anybody elsewhere."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from edgeflow_agent.version import VERSION
from edgeflow_mlflow.domain import addresses
from edgeflow_mlflow.services import dialling

_READ = 2048


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came of it. `status` is 0 when nothing answered; `text` what was said, or what went wrong."""

    delivered: bool
    status: int = 0
    text: str = ""
    retry_after_s: float | None = None


def signature(secret: str, delivery_id: str, timestamp: str, body: bytes) -> str:
    """As MLflow signs its webhooks: `v1,` and the HMAC of id, moment and body."""
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def headers(secret: str, delivery_id: str, timestamp: str, body: bytes) -> dict[str, str]:
    """What a receiver knows a delivery by, signed when there is a secret."""
    found = {"X-Edgeflow-Delivery-Id": delivery_id, "X-Edgeflow-Timestamp": timestamp}
    if secret:
        found["X-Edgeflow-Signature"] = signature(secret, delivery_id, timestamp, body)
    return found


def post(url: str, body: bytes, headers: Mapping[str, str], *, allow_private: bool) -> Reply:
    """Send JSON; a redirect is an answer like any other that is not 2xx."""
    place = addresses.place(url)
    link: socket.socket | None = None
    try:
        link = dialling.dial(place.host, place.port, allow_private=allow_private)
        with dialling.within(dialling.TIMEOUT_S, lambda: link) as over:
            if place.scheme == "https":
                link = dialling.secure(link, place.host)
            reply = _exchange(place, link, body, headers)
        if over.is_set():
            return Reply(delivered=False, text=f"{place.shown} does not come to an end with its answer")
        return reply
    except dialling.RefusedError as error:
        return Reply(delivered=False, text=str(error))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Reply(delivered=False, text=f"{place.shown} does not answer: {error or type(error).__name__}")
    finally:
        if link is not None:
            link.close()


def _exchange(place: addresses.Place, link: socket.socket, body: bytes, headers: Mapping[str, str]) -> Reply:
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    connection = kind(place.host, place.port, timeout=dialling.TIMEOUT_S)
    connection.sock = link  # it is connected already, so http.client looks nothing up
    own = {"Content-Type": "application/json", "User-Agent": f"edgeflow/{VERSION}", "Connection": "close"}
    connection.request("POST", place.path, body, {**own, **headers})
    answer = connection.getresponse()
    said = " ".join(answer.read(_READ).decode(errors="replace").split())[:200]
    delivered = 200 <= answer.status < 300
    if not delivered:
        where = answer.headers.get("Location", "")[:200]
        said = f"{answer.status} {answer.reason}: {said}" + (f" (not followed: {where})" if where else "")
    return Reply(
        delivered=delivered,
        status=answer.status,
        text=said.replace("\0", ""),
        retry_after_s=_seconds(answer.headers.get("Retry-After", "")),
    )


def _seconds(text: str) -> float | None:
    """Retry-After in seconds; a date is not worth its parsing, the usual wait does."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None
