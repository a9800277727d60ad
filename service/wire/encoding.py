"""Packed bodies: gzip, deflate and zstd, with a cap on what they unpack to."""

from __future__ import annotations

import zlib

from ctxmem.errors import InvalidInput
from service.errors import BodyTooLarge

IDENTITY = frozenset({"", "identity"})


def unpacked(body: bytes, encoding: str, *, limit: int) -> bytes:
    """The body behind a `content-encoding`.

    Args:
        body: bytes as received.
        encoding: the header's value; several are undone from the last to the first.
        limit: largest unpacked size in bytes.

    Raises:
        InvalidInput: the encoding is unknown or the bytes do not follow it.
        BodyTooLarge: it unpacks to more than the limit.
    """
    for name in reversed([part.strip().lower() for part in encoding.split(",")]):
        if name not in IDENTITY:
            body = _unpack(body, name, limit)
    return body


def _unpack(body: bytes, encoding: str, limit: int) -> bytes:
    if encoding in ("gzip", "x-gzip", "deflate"):
        unpacked_body = _inflated(body, limit)
    elif encoding == "zstd":
        unpacked_body = _zstd(body, limit)
    else:
        raise InvalidInput(f"content-encoding {encoding!r} is not supported; use gzip, deflate or zstd.")
    if len(unpacked_body) > limit:
        raise BodyTooLarge(limit)
    return unpacked_body


def _inflated(body: bytes, limit: int) -> bytes:
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        unpacked_body = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInput(f"The body is not valid gzip or deflate: {error}") from error
    if not inflate.eof and len(unpacked_body) <= limit:
        raise InvalidInput("The packed body is cut off.")
    return unpacked_body


def _zstd(body: bytes, limit: int) -> bytes:
    import zstandard  # loaded by the first zstd body: few clients send one

    try:
        with zstandard.ZstdDecompressor(max_window_size=2**23).stream_reader(body) as reader:
            return reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise InvalidInput(f"The body is not valid zstd: {error}") from error
