"""What a body says that it is."""

from __future__ import annotations

from collections.abc import Collection

from edgeflow_agent.inference.messages import JSON, Request
from edgeflow_agent.inference.refusals import RefusedError

# `curl -d` says this of anything, so it says nothing: the body is read as JSON.
_UNSAID = b"application/x-www-form-urlencoded"


def kind(request: Request, known: Collection[bytes]) -> bytes:
    """The media type of the body, JSON when nothing is said. Raise RefusedError when it is not `known`."""
    said = request.headers.get(b"content-type")
    if said is None or said == JSON:
        return JSON
    name = said.partition(b";")[0].strip().lower()
    if name in known:
        return name
    if name in (b"", _UNSAID):
        return JSON
    listing = ", ".join(item.decode() for item in known)
    path = request.path.decode("latin-1")[:200]
    raise RefusedError(
        415,
        "content_type",
        f"the content type {name.decode('latin-1')[:80]!r} is unknown to {path}; known are {listing}",
        headers=b"Accept: %s\r\n" % listing.encode(),
    )
