"""What a simulated device wants done, and what it is told of it."""

from __future__ import annotations

from typing import NamedTuple

from edgeflow_agent.wire.documents import DesiredDeployment, ReportsRequest, Session
from edgeflow_agent.wire.topics import Kind


class Publish(NamedTuple):
    """Send this by MQTT."""

    kind: Kind
    payload: bytes


class Dial(NamedTuple):
    """Connect to this broker; then `connected` or `dial_failed`."""

    url: str


class HangUp(NamedTuple):
    """End the connection, as a cable does that is pulled out."""


class Poll(NamedTuple):
    """Ask over HTTP; then `polled` or `poll_failed`."""

    session: bool
    trust: bool
    etag: str
    generation: int


class Post(NamedTuple):
    """Hand reports over by HTTP; then `posted` or `post_failed`."""

    request: ReportsRequest


class Fetch(NamedTuple):
    """Fetch the files of this deployment and hash them; then `fetched`."""

    deployment: DesiredDeployment


class Polled(NamedTuple):
    """What the server answered to a poll: `desired` is empty where nothing is new."""

    session: Session | None = None
    trust: bytes = b""
    desired: bytes = b""
    etag: str = ""


Output = Publish | Dial | HangUp | Poll | Post | Fetch
