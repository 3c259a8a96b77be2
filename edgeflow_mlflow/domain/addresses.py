"""Where notifications may go: URLs that can be, and addresses that anybody may reach."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from edgeflow_mlflow import errors

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?(?P<rest>[/?][!-~]*)?"
)
_MAX_URL = 2048
# Addresses that carry one of IPv4 within.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, kw_only=True)
class Place:
    """A URL in its parts. `path` has the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def shown(self) -> str:
        """What may be shown: path and query of a webhook are often its secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return f"{self.scheme}://{host}" + ("" if self.port == usual else f":{self.port}")


def place(url: str) -> Place:
    """The parts of a URL; raise InvalidError when nothing can be sent there."""
    found = _URL.fullmatch(url)
    if found is None or len(url) > _MAX_URL or "#" in url:
        raise errors.InvalidError(
            "the URL of a receiver is http(s)://host[:port]/path, without user, password and fragment"
        )
    port = int(found["port"] or (443 if found["scheme"] == "https" else 80))
    if not 0 < port < 65536:
        raise errors.InvalidError(f"{port} is no port")
    rest = found["rest"] or "/"
    return Place(
        scheme=found["scheme"],
        host=found["host"].strip("[]").lower(),
        port=port,
        path=rest if rest.startswith("/") else f"/{rest}",
    )


def refusal(address: str, *, allow_private: bool) -> str:
    """Why nothing is sent to an address; empty when it may be."""
    try:
        found = _bare(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return f"{address} is no address"
    if found.is_unspecified or found.is_multicast or found.is_link_local:
        return f"{address} is no address of a receiver"
    if not found.is_global and not allow_private:
        return (
            f"{address} is a private address: set [notifications] allow_private = true to send there "
            "(EDGEFLOW_NOTIFICATIONS_ALLOW_PRIVATE=true)"
        )
    return ""


def _bare(address: _Address) -> _Address:
    """The address of IPv4 within one of IPv6 that only wraps it."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    within = address.ipv4_mapped or address.sixtofour
    if within is None and address.teredo is not None:
        within = address.teredo[1]
    return within or address


def check_host(host: str, *, allow_private: bool) -> None:
    """Refuse at once what is wrong whatever a name means later."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host == "localhost" and not allow_private:
            raise errors.InvalidError(refusal("127.0.0.1", allow_private=False)) from None
        return
    if why := refusal(host, allow_private=allow_private):
        raise errors.InvalidError(why)
