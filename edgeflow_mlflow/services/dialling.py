"""Connections to receivers: only to an address that was looked at, and never for longer than agreed."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

from edgeflow_mlflow.domain import addresses

TIMEOUT_S = 10.0


class RefusedError(Exception):
    """Nothing is sent there."""


def dial(host: str, port: int, *, allow_private: bool) -> socket.socket:
    """A connection to the first address of the host that answers and may be sent to. What was looked at is
    what is connected to: a name that means something else a moment later changes nothing."""
    refused = ""
    failed: OSError | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise RefusedError(f"{host} is no host name") from error
    for family, kind, protocol, _, address in found:
        if why := addresses.refusal(str(address[0]), allow_private=allow_private):
            refused = refused or why
            continue
        link = socket.socket(family, kind, protocol)
        link.settimeout(TIMEOUT_S)
        try:
            link.connect(address)
            return link
        except OSError as error:
            link.close()
            failed = error
    if failed is not None:
        raise failed
    raise RefusedError(refused or f"{host} has no address")


def context() -> ssl.SSLContext:
    """How certificates are checked: by the system's authorities, or those of SSL_CERT_FILE."""
    return ssl.create_default_context()


def secure(link: socket.socket, host: str) -> ssl.SSLSocket:
    """TLS over a connection, for a host whose certificate is checked."""
    try:
        return context().wrap_socket(link, server_hostname=host)
    except BaseException:
        link.close()
        raise


@contextlib.contextmanager
def within(seconds: float, link: Callable[[], socket.socket | None]) -> Iterator[threading.Event]:
    """End the connection after so long: one that says a byte now and then never runs into a timeout. The
    event is set when it was ended; what was read until then may look like a whole answer."""
    over = threading.Event()

    def end() -> None:
        over.set()
        found = link()
        if found is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(found, socket.SHUT_RDWR)  # of TLS too, without its goodbye

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield over
    finally:
        timer.cancel()
