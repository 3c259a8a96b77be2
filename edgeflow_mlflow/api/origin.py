"""Where a request may come from: a web page open in an operator's browser is not the operator."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

from werkzeug.datastructures import Headers

from edgeflow_mlflow import errors

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def check_host(host: str, allowed: Collection[str]) -> None:
    """Refuse a name that nobody configured: DNS rebinding needs a name of the attacker's. An address is
    what devices use, so any is taken."""
    name = host_name(host)
    if name == "localhost" or name in allowed or host in allowed:
        return
    try:
        ipaddress.ip_address(name)
    except ValueError as error:
        raise errors.ForbiddenError(
            f"requests for the host name {(name or host)[:120]!r} are refused; allow it with [server] "
            "allowed_hosts"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """The name or address in a Host header, without the port."""
    return _split(f"//{host}").hostname or ""


def check_change(method: str, headers: Headers, *, host: str, has_body: bool) -> None:
    """Refuse a change that another site's page could have sent: it must be JSON, and of our own origin
    when the browser says where it comes from."""
    if method in SAFE_METHODS:
        return
    site = headers.get("Sec-Fetch-Site", "none")
    if site not in ("same-origin", "none"):
        raise errors.ForbiddenError("a page of another site cannot change anything here")
    origin = headers.get("Origin", "")
    if origin and _split(origin).netloc != host:
        raise errors.ForbiddenError(f"a page of {origin[:120]!r} cannot change anything here")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise errors.MediaTypeError("send the body as it is, without Content-Encoding")
    if has_body or method != "DELETE":
        media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise errors.MediaTypeError("send JSON: Content-Type must be application/json")


def _split(address: str) -> SplitResult:
    """The parts of an address that anybody may have written; an unreadable one has none."""
    try:
        return urlsplit(address)
    except ValueError:
        return SplitResult("", "", "", "", "")
