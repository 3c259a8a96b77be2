"""Fetching one blob: resumable, hashed while it is written, never a byte more than was signed for."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from edgeflow_agent import errors
from edgeflow_agent.link import http as link_http
from edgeflow_agent.wire.documents import FileRef

logger = logging.getLogger(__name__)

_CHUNK = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
# Anything slower than this over a whole window is taken for a stalled sender.
_MIN_RATE = 1024
_RATE_WINDOW_S = 60.0


class StoppedError(Exception):
    """The caller asked to stop; what has arrived is kept."""


def fetch(
    api: link_http.DeviceApi,
    item: FileRef,
    partial: Path,
    *,
    gap_s: float = 30.0,
    should_stop: Callable[[], bool] = lambda: False,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> None:
    """Bring `partial` to exactly the bytes of `item`, going on from what it holds.

    One attempt over the network. Raise TransferError when trying again may help, ContractError with reason
    `digest` when the server sends other bytes than those that were signed for (the partial file is then
    gone), StoppedError when `should_stop` says so. `on_bytes` hears how many bytes are there.
    """
    digest = hashlib.sha256()
    have = _rehash(partial, item, digest)
    on_bytes(have)
    if have < item.size or not partial.exists():
        have = _receive(api, item, partial, have, digest, gap_s, should_stop, on_bytes)
    if have == item.size and digest.hexdigest() == item.sha256:
        return
    partial.unlink(missing_ok=True)
    raise errors.ContractError(
        f"the server sent other bytes for {item.path} than those that were signed for", reason="digest"
    )


def _rehash(partial: Path, item: FileRef, digest: hashlib._Hash) -> int:
    """Hash what an earlier attempt left; the file is the only state that is trusted."""
    try:
        with partial.open("rb") as file:
            have = 0
            while chunk := file.read(_CHUNK):
                have += len(chunk)
                digest.update(chunk)
    except FileNotFoundError:
        return 0
    if have > item.size:
        partial.unlink()
        raise errors.TransferError(f"the partial file of {item.path} was too long and is removed")
    return have


def _receive(
    api: link_http.DeviceApi,
    item: FileRef,
    partial: Path,
    have: int,
    digest: hashlib._Hash,
    gap_s: float,
    should_stop: Callable[[], bool],
    on_bytes: Callable[[int], None],
) -> int:
    headers = api.headers()
    if have:
        headers["Range"] = f"bytes={have}-"
        headers["If-Range"] = f'"{item.sha256}"'
    path = f"/api/v1/device/blobs/{item.sha256}"
    connection = api.server.connect(gap_s)
    try:
        connection.request("GET", api.server.target(path), headers=headers)
        response = connection.getresponse()
        if response.status == 416:
            partial.unlink(missing_ok=True)
            raise errors.TransferError(f"the server cannot resume {item.path}; it is fetched from the start")
        if response.status not in (200, 206):
            raise link_http.refusal(
                response.status, response.read(4096), path, response.getheader("Location") or ""
            )
        if response.status == 200 and have:
            # The server starts over, so do we. The hash so far is of no use.
            partial.unlink(missing_ok=True)
            raise errors.TransferError(
                f"the server does not resume {item.path}; it is fetched from the start"
            )
        if response.status == 206:
            _check_range(response, have, item)
        return _write(response, item, partial, have, digest, should_stop, on_bytes)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise errors.StateError(
                f"the disk is full while {item.path} is fetched; make room on the device", reason="no_space"
            ) from error
        raise errors.TransferError(
            f"fetching {item.path} broke off at {partial_size(partial)} of {item.size} bytes: "
            f"{link_http.describe(error)}",
            reason="unreachable",
        ) from error
    finally:
        connection.close()


def _check_range(response: http.client.HTTPResponse, have: int, item: FileRef) -> None:
    match = _CONTENT_RANGE.fullmatch(response.getheader("Content-Range") or "")
    if match is None or int(match[1]) != have or int(match[3]) != item.size:
        raise errors.ContractError(
            f"the server answers with another range of {item.path} than was asked for", reason="digest"
        )


def _write(
    response: http.client.HTTPResponse,
    item: FileRef,
    partial: Path,
    have: int,
    digest: hashlib._Hash,
    should_stop: Callable[[], bool],
    on_bytes: Callable[[int], None],
) -> int:
    descriptor = os.open(
        partial, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    window, window_have = time.monotonic(), have
    with os.fdopen(descriptor, "wb") as file:
        # read1 returns what has come, so that a slow sender is noticed and a stop is heard.
        while chunk := response.read1(min(_CHUNK, item.size + 1 - have)):
            have += len(chunk)
            if have > item.size:
                return have
            digest.update(chunk)
            file.write(chunk)
            on_bytes(have)
            if should_stop():
                raise StoppedError
            now = time.monotonic()
            if now - window > _RATE_WINDOW_S:
                if have - window_have < _MIN_RATE * _RATE_WINDOW_S:
                    raise errors.TransferError(f"fetching {item.path} is too slow", reason="slow")
                window, window_have = now, have
    if have < item.size:
        raise errors.TransferError(
            f"fetching {item.path} broke off at {have} of {item.size} bytes", reason="unreachable"
        )
    return have


def partial_size(partial: Path) -> int:
    """How many bytes are there already."""
    try:
        return partial.stat().st_size
    except FileNotFoundError:
        return 0
