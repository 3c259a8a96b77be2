"""Content codings of HTTP: bodies that come compressed, held to a size, and answers that are asked for so."""

from __future__ import annotations

import zlib

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.inference.messages import Request, Response
from edgeflow_agent.inference.refusals import RefusedError

KNOWN = "gzip, deflate"
# A smaller answer fits into few packets anyway, and packing costs more than iris.
_WORTH_PACKING = 8 * 1024
_LEVEL = 1  # the time of a small processor is dearer than its network
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's `wbits`


def unpacked(request: Request, limit: int) -> bytes | memoryview:
    """The body as its sender meant it, of at most `limit` bytes. Raise InputError."""
    coding = request.headers.get(b"content-encoding")
    if coding is None:
        return request.body
    coding = coding.strip().lower()
    if coding in (b"", b"identity"):
        return request.body
    if coding in (b"gzip", b"x-gzip"):
        return _inflate(request.body, _GZIP, limit)
    if coding == b"deflate":
        # By the standard it is zlib's format; some senders leave zlib's frame off.
        framed = len(request.body) > 1 and request.body[0] & 15 == 8 and not _head_of(request.body) % 31
        return _inflate(request.body, _ZLIB if framed else _RAW, limit)
    raise RefusedError(
        415,
        "content_encoding",
        f"the content encoding {coding.decode('latin-1')[:60]!r} is unknown here; known are {KNOWN}",
        headers=f"Accept-Encoding: {KNOWN}\r\n".encode(),
    )


def _head_of(body: bytes | memoryview) -> int:
    return int.from_bytes(body[:2], "big")


def _inflate(body: bytes | memoryview, wbits: int, limit: int) -> bytes:
    inflater = zlib.decompressobj(wbits)
    try:
        # One more than allowed, so that a bomb is known before it has been made whole.
        plain = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise errors.InputError(f"the body is not what its Content-Encoding says: {error}") from error
    if len(plain) > limit:
        raise RefusedError(
            413, "body_too_large", f"the body is over {limit} bytes once unpacked (serve.max_body_mb)"
        )
    if not inflater.eof:
        raise errors.InputError("the compressed body ends too early")
    if inflater.unused_data:
        raise errors.InputError("there are bytes after the end of the compressed body")
    return plain


def packed(response: Response, accepted: bytes) -> Response:
    """The answer in a coding that its asker accepts, where that is worth it."""
    if len(response.body) < _WORTH_PACKING:
        return response
    coding = _chosen(accepted)
    if coding is None:
        return response
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP if coding == b"gzip" else _ZLIB)
    body = deflater.compress(response.body) + deflater.flush()
    headers = response.headers + b"Content-Encoding: %s\r\nVary: Accept-Encoding\r\n" % coding
    return msgspec.structs.replace(response, body=body, headers=headers)


def _chosen(accepted: bytes) -> bytes | None:
    weights = {}
    for item in accepted.lower().split(b","):
        coding, _, parameter = item.partition(b";")
        weights[coding.strip()] = _weight(parameter)
    anything = weights.get(b"*", 0.0)
    gzip, deflate = weights.get(b"gzip", anything), weights.get(b"deflate", anything)
    if max(gzip, deflate) <= 0:
        return None
    return b"gzip" if gzip >= deflate else b"deflate"


def _weight(parameter: bytes) -> float:
    name, _, value = parameter.strip().partition(b"=")
    if name.strip() != b"q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
