"""Compress and decompress bodies: gzip and deflate by isal (four times zlib's speed), zstd by zstandard.

Decompression is bounded while it inflates, so that a bomb is stopped at the limit and not after it.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from isal import igzip_lib, isal_zlib

from otelwp_agent.errors import MalformedError, PermanentError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Collection

ENCODINGS = frozenset({"gzip", "zstd", "deflate", "zlib"})
"""Content encodings that can be read and written. `zlib` is what some peers call `deflate`."""

_GZIP_LEVEL = 1
_ZSTD_LEVEL = 1
_GZIP_MEMBER = b"\x1f\x8b"


class UnknownEncodingError(PermanentError):
    """The body is encoded in a way that nobody here reads."""

    reason = "unknown_encoding"


def compress(encoding: str, data: bytes, level: int | None = None) -> bytes:
    """Return `data` compressed as `encoding` (`gzip`, `zstd`, `deflate`, `zlib`; "" and `none` leave it).

    `level` is the encoding's own scale; without it the fastest.
    """
    if encoding in ("", "none", "identity"):
        return data
    if encoding == "zstd":
        import zstandard  # noqa: PLC0415 - only who uses zstd pays its memory

        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL if level is None else level).compress(data)
    if encoding == "gzip":
        if level is None or 0 <= level <= isal_zlib.ISAL_BEST_COMPRESSION:
            return bytes(igzip_lib.compress(data, _GZIP_LEVEL if level is None else level, flag=igzip_lib.COMP_GZIP))
        return zlib.compress(data, level, wbits=31)
    if encoding in ("deflate", "zlib"):
        if level is None or 0 <= level <= isal_zlib.ISAL_BEST_COMPRESSION:
            return bytes(isal_zlib.compress(data, _GZIP_LEVEL if level is None else level))
        return zlib.compress(data, level)
    raise UnknownEncodingError(f"unknown encoding {encoding!r}: gzip, zstd, deflate and zlib are written here")


def decompress(encoding: str, data: bytes, limit: int, accepted: Collection[str] = ENCODINGS) -> bytes:
    """Return `data`, encoded as the `Content-Encoding` header says, decompressed to at most `limit` bytes.

    Raises `UnknownEncodingError` (not in `accepted`), `TooLargeError` (would pass `limit`) or `MalformedError`.
    """
    names = [name.strip() for name in encoding.lower().split(",")]
    for name in reversed(names):
        if name in ("", "identity"):
            continue
        if name not in accepted or name not in ENCODINGS:
            known = ", ".join(sorted(set(accepted) & ENCODINGS)) or "none"
            raise UnknownEncodingError(f"unknown content encoding {name!r}: accepted here are {known}")
        data = _inflate_zstd(data, limit) if name == "zstd" else _inflate(name, data, limit)
    return data


def _inflate(name: str, data: bytes, limit: int) -> bytes:
    wbits = 31 if name == "gzip" else 15
    if name == "deflate" and not _looks_like_zlib(data):
        wbits = -15  # raw deflate: some clients never learned of the zlib wrapper that RFC 9110, 8.4.1.2 means
    parts: list[bytes] = []
    room = limit
    try:
        while True:
            inflater = isal_zlib.decompressobj(wbits)
            part = inflater.decompress(data, room + 1)
            parts.append(part)
            room -= len(part)
            if room < 0:
                raise TooLargeError(f"the body inflates to more than {limit} bytes")
            if not inflater.eof:
                raise MalformedError(f"the {name} body is cut short")
            data = inflater.unused_data
            if not (wbits == 31 and data.startswith(_GZIP_MEMBER)):  # noqa: PLR2004 - gzip may have several members
                return parts[0] if len(parts) == 1 else b"".join(parts)
    except isal_zlib.error as error:  # type: ignore[misc]  # a class, whatever the stub says
        raise MalformedError(f"the body is not {name}: {error}") from error


def _looks_like_zlib(data: bytes) -> bool:
    """Tell a zlib header (RFC 1950, 2.2) from raw deflate."""
    return len(data) > 1 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0  # noqa: PLR2004


def _inflate_zstd(data: bytes, limit: int) -> bytes:
    import zstandard  # noqa: PLC0415 - only who uses zstd pays its memory

    # The window is what a frame makes us allocate before its first byte comes out: no more than the body may be, or
    # the 8 MiB that every reader should support (RFC 8878, 3.1.1.1.2).
    window = 1 << (max(limit, 8 << 20) - 1).bit_length()
    try:
        size = zstandard.get_frame_parameters(data).content_size
        body = bytes(
            zstandard.ZstdDecompressor(max_window_size=window)
            .stream_reader(data, read_across_frames=True)
            .read(limit + 1)
        )
        if len(body) > limit:
            raise TooLargeError(f"the body inflates to more than {limit} bytes")
        if size == zstandard.CONTENTSIZE_UNKNOWN:
            # A reader does not tell a frame's end from the data's; now that the output is known to be small, ask again.
            inflater = zstandard.ZstdDecompressor(max_window_size=window).decompressobj()
            inflater.decompress(data)
            complete = inflater.eof
        else:
            complete = len(body) >= size
    except zstandard.ZstdError as error:
        raise MalformedError(f"the body is not zstd: {error}") from error
    if not complete:
        raise MalformedError("the zstd body is cut short")
    return body
