"""Compress and decompress bodies: gzip and deflate with isal (four times as fast as zlib), zstd with zstandard.

Decompression is limited while it runs: all content encodings of a body share one budget of output bytes, and the cost
is linear in the bytes read and written. Both libraries release the GIL while they work.

All encodings treat bytes after the compressed data in the same way: another gzip member or zstd frame (also a skippable
frame) belongs to the body, anything else is malformed. Go's readers, which the OpenTelemetry Collector uses, reject the
same bytes for gzip and zstd.
"""

from __future__ import annotations

import threading
import zlib
from typing import TYPE_CHECKING, Any

from isal import igzip_lib, isal_zlib

from otelwp_agent.errors import MalformedError, PermanentError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Collection

ENCODINGS = frozenset({"gzip", "zstd", "deflate", "zlib"})
"""Content encodings that can be read and written. Some peers use the name `zlib` for `deflate`."""

INFLATE_OFF_LOOP = 256 * 1024
"""Compressed bytes above which servers decompress a body in a thread.

Crafted deflate blocks cost 0.18 µs for each byte, which is 47 ms here and 3.7 s at 20 MiB. Telemetry of this size
inflates to megabytes, in a millisecond for each.
"""

_GZIP_LEVEL = 1
_ZSTD_LEVEL = 1
_SMALLEST_WINDOW, _LARGEST_WINDOW = 10, 27
"""Limits of the window of zstd, as powers of two: the library's smallest, and the largest that its tools read."""
_KEPT_LEVELS = 3
"""Highest level of zstd whose compressor is kept for the next body, which saves 27 µs. It keeps about 1 MB of memory in
each thread; that of level 19 would keep 80 MB."""
_kept = threading.local()
"""The compressors of a thread, by level: they must not be used by two threads at once."""
_GZIP_MEMBER = b"\x1f\x8b"

MAX_CODINGS = 2
"""Maximum number of content encodings of one body; more of them only multiply the cost."""
MAX_RATIO = 200
"""Maximum number of output bytes for each byte received.

Spans differ in 24 bytes of ids and 16 bytes of times, log records in 8 bytes of time, so telemetry inflates by a factor
of 5 to 50. Runs of equal bytes inflate by 1000 (gzip) to 30 000.
"""
FREE_OUTPUT = 4 * 2**20
"""Output bytes that every body may have, whatever its ratio: a batch of 8192 spans of 500 bytes."""
LAYER_RATIO, FREE_LAYER = 2, 128 * 1024
"""Limits of a body with two encodings after the outer one is removed: times the bytes received, or bytes.

Compressed telemetry hardly shrinks when it is compressed again: by a factor of 1.35 at most (30 000 data points or log
records, gzip level 1, then gzip or zstd level 9). Periodic bodies shrink by a factor of 10, but 2.4 MB of them are
only 85 KB after the first gzip. A crafted inner layer, such as empty deflate blocks with Huffman tables, costs 0.25 µs
of CPU for each byte, and shrinks by a factor of 8000: without this limit, 313 bytes on the wire cost 400 ms.
"""

_WINDOW = 256 * 1024
"""Input bytes for one call of isal. Most bodies are smaller."""
_FIRST_WINDOW = 512
"""Input bytes for the first call for a later gzip member, because isal copies the bytes that it does not use."""
_SLICE = 4 * 2**20
"""Maximum number of output bytes of one call."""
_FREE_MEMBERS, _FREE_BLOCKS = 64, 4096
"""Gzip members, and zstd frames and blocks (of up to 128 KiB), that every body may have, whatever its size.

A larger body may have one more for each `_BYTES_PER_PART` bytes received, in each of its encodings.
"""
_BYTES_PER_PART = 256
"""Minimum number of input bytes per part, on average.

A part costs a microsecond. Even a sender that ends a part after each log line has more bytes per part.
"""


class UnknownEncodingError(PermanentError):
    """The body has a content encoding that the agent cannot read or write."""

    reason = "unknown_encoding"


def compress(encoding: str, data: bytes, level: int | None = None, *, long_window: bool = False) -> bytes:
    """Return `data` compressed with `encoding`.

    `encoding` is `gzip`, `zstd`, `deflate` or `zlib`; with an empty string, `none` or `identity` the data are returned
    unchanged. `level` is the compression level of that encoding; by default the fastest. `long_window` makes zstd find
    repetitions over all of `data`, instead of the last MiB or less.
    """
    if encoding in ("", "none", "identity"):
        return data
    if encoding == "zstd":
        return _zstd(data, _ZSTD_LEVEL if level is None else level, long_window=long_window)
    if encoding == "gzip":
        if level is None or 0 <= level <= isal_zlib.ISAL_BEST_COMPRESSION:
            return bytes(igzip_lib.compress(data, _GZIP_LEVEL if level is None else level, flag=igzip_lib.COMP_GZIP))
        return zlib.compress(data, level, wbits=31)
    if encoding in ("deflate", "zlib"):
        if level is None or 0 <= level <= isal_zlib.ISAL_BEST_COMPRESSION:
            return bytes(isal_zlib.compress(data, _GZIP_LEVEL if level is None else level))
        return zlib.compress(data, level)
    raise UnknownEncodingError(f"unknown encoding {encoding!r}: gzip, zstd, deflate and zlib are supported")


def _zstd(data: bytes, level: int, *, long_window: bool) -> bytes:
    import zstandard  # noqa: PLC0415 - only users of zstd need its memory

    if not long_window:
        compressor = _kept.__dict__.get(str(level))
        if compressor is None:
            compressor = zstandard.ZstdCompressor(level=level)
            if level <= _KEPT_LEVELS:
                _kept.__dict__[str(level)] = compressor
        compressed: bytes = compressor.compress(data)
        return compressed
    window = min(max(len(data).bit_length(), _SMALLEST_WINDOW), _LARGEST_WINDOW)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(data), enable_ldm=True, window_log=window
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def decompress(
    encoding: str, data: bytes, limit: int, accepted: Collection[str] = ENCODINGS, *, ratio: int = MAX_RATIO
) -> bytes:
    """Return `data` decompressed to at most `limit` bytes; `encoding` is the value of the `Content-Encoding` header.

    With two encodings, the output of the outer one counts too, and is limited by `LAYER_RATIO` as well. Above
    `FREE_OUTPUT` bytes, the output may have at most `ratio` times the bytes of `data`. A `ratio` of 0 switches both
    limits off, for data that this process has written.

    Raises `UnknownEncodingError` (an encoding that is not in `accepted`, or more than `MAX_CODINGS`), `TooLargeError`
    (the output would exceed `limit`, `ratio` or `LAYER_RATIO`) or `MalformedError`.
    """
    names = [encoding] if encoding in ENCODINGS else _names(encoding)
    budget = _Budget(limit, max(FREE_OUTPUT, ratio * len(data)) if ratio else limit, len(data))
    if len(names) == MAX_CODINGS:
        layer = budget.layer(max(FREE_LAYER, LAYER_RATIO * len(data))) if ratio else budget
        data = _remove(names.pop(), data, layer, accepted)
        if layer is not budget:
            budget.spend(len(data))
    return _remove(names[0], data, budget, accepted) if names else data


def _remove(name: str, data: bytes, budget: _Budget, accepted: Collection[str]) -> bytes:
    """Return `data` without the encoding `name`."""
    if name not in accepted or name not in ENCODINGS:
        known = ", ".join(sorted(set(accepted) & ENCODINGS)) or "none"
        raise UnknownEncodingError(f"unknown content encoding {name!r}: accepted: {known}")
    parts = _inflate_zstd(data, budget) if name == "zstd" else _inflate(name, data, budget)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _names(encoding: str) -> list[str]:
    """Return the encodings in a `Content-Encoding` header, in the order in which they were applied."""
    names = [name for part in encoding.lower().split(",") if (name := part.strip()) not in {"", "identity"}]
    if len(names) > MAX_CODINGS:
        raise UnknownEncodingError(f"{len(names)} content encodings: a body can have {MAX_CODINGS} at most")
    return names


class _Budget:
    """Output bytes that one body, or its outer encoding, may still produce."""

    __slots__ = ("_limit", "_most", "_of_layer", "left", "received")

    def __init__(self, limit: int, most: int, received: int, *, of_layer: bool = False) -> None:
        """Allow `limit` bytes by configuration, and `most` bytes for a body of which `received` bytes have arrived."""
        self._limit = limit
        self._most = most
        self._of_layer = of_layer
        self.left = min(limit, most)
        self.received = received

    def layer(self, most: int) -> _Budget:
        """Return the budget of the outer of two encodings: `most` bytes, if this budget is not smaller."""
        return self if self.left <= most else _Budget(self._limit, most, self.received, of_layer=True)

    def spend(self, size: int) -> None:
        """Subtract `size` output bytes; raise `TooLargeError` if the budget is exceeded."""
        self.left -= size
        if self.left >= 0:
            return
        if self._of_layer:
            raise TooLargeError(
                f"the body inflates to more than {self._most} bytes after its outer encoding is removed, which is too "
                "much for its size: use one content encoding"
            )
        if self._most < self._limit:
            raise TooLargeError(f"the body inflates to more than {self._most} bytes, which is too much for its size")
        raise TooLargeError(f"the body inflates to more than {self._limit} bytes")


def _inflate(name: str, data: bytes, budget: _Budget) -> list[bytes]:
    """Return the decompressed gzip, zlib or deflate data, in parts."""
    wbits = 31 if name == "gzip" else 15
    if name == "deflate" and not _looks_like_zlib(data):
        wbits = -15  # raw deflate: some clients omit the zlib header that RFC 9110, 8.4.1.2 requires
    parts: list[bytes] = []
    position, window = 0, _WINDOW
    most = _FREE_MEMBERS + budget.received // _BYTES_PER_PART
    try:
        if len(data) <= _WINDOW:  # nearly every body is one member and is read in one call
            inflater = isal_zlib.decompressobj(wbits)
            part = inflater.decompress(data, min(budget.left + 1, _SLICE))
            if inflater.eof and not inflater.unused_data:
                budget.spend(len(part))
                return [part]
        for _ in range(most):
            inflater = isal_zlib.decompressobj(wbits)
            while not inflater.eof:
                if position >= len(data):
                    raise MalformedError(f"the {name} body is cut short")
                chunk = memoryview(data)[position : position + window]
                position += len(chunk)
                _inflate_chunk(inflater, chunk, budget, parts)
                window = min(2 * window, _WINDOW)
            position -= len(inflater.unused_data)
            if position == len(data):
                return parts
            if not (name == "gzip" and data.startswith(_GZIP_MEMBER, position)):
                raise MalformedError(f"{len(data) - position} bytes follow the end of the {name} body")
            window = _FIRST_WINDOW
    except isal_zlib.error as error:  # type: ignore[misc]  # a class, whatever the stub says
        raise MalformedError(f"the body is not {name}: {error}") from error
    raise MalformedError(f"the gzip body has more than {most} members, which is too many for its size")


def _inflate_chunk(inflater: Any, chunk: bytes | memoryview, budget: _Budget, parts: list[bytes]) -> None:  # noqa: ANN401 - isal names no type for it
    """Append the decompressed bytes of one piece of input to `parts`, in slices."""
    while True:
        wanted = min(budget.left + 1, _SLICE)  # one byte above the budget shows that it is exceeded
        part = inflater.decompress(chunk, wanted)
        budget.spend(len(part))
        parts.append(part)
        if inflater.eof:
            return
        chunk = inflater.unconsumed_tail
        if len(part) < wanted and not chunk:
            return


def _looks_like_zlib(data: bytes) -> bool:
    """Return whether `data` begins with a zlib header (RFC 1950, 2.2); if not, the data are raw deflate."""
    return len(data) > 1 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0  # noqa: PLR2004


def _inflate_zstd(data: bytes, budget: _Budget) -> list[bytes]:
    """Return the decompressed zstd frames, in parts."""
    import zstandard  # noqa: PLC0415 - only users of zstd need its memory

    from otelwp_agent.transport.zstd_frames import check_frames  # noqa: PLC0415 - the same

    check_frames(data, _FREE_BLOCKS + budget.received // _BYTES_PER_PART)
    # A frame makes the decoder allocate its window before the first output byte. Limit it to the size that the body may
    # have, or to the 8 MiB that every reader should support (RFC 8878, 3.1.1.1.2).
    window = 1 << (max(budget.left, 8 << 20) - 1).bit_length()
    inflater = zstandard.ZstdDecompressor(max_window_size=window)
    parts: list[bytes] = []
    try:
        reader = inflater.stream_reader(data, read_across_frames=True)
        while part := reader.read(min(budget.left + 1, _SLICE)):
            budget.spend(len(part))
            parts.append(part)
    except zstandard.ZstdError as error:
        raise MalformedError(f"the body is not zstd: {error}") from error
    return parts
