"""Feed any bytes to decompression: it may refuse them, but never returns more bytes than the limit.

The first byte of an input selects the encoding. `python benchmarks/fuzz/fuzz_inflate.py --seconds 10 --seed 1`
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from fuzzing import main  # noqa: E402 - beside this file

from otelwp_agent.errors import ConsumeError  # noqa: E402
from otelwp_agent.transport.compression import compress, decompress  # noqa: E402

ENCODINGS = ("gzip", "zstd", "deflate", "zlib", "gzip, zstd")
LIMIT = 64 * 1024
SIZES = (0, 1, 1000, LIMIT, LIMIT + 1, 50 * LIMIT)


def inflate(data: bytes) -> None:
    """Decompress the bytes after the first one."""
    encoding = ENCODINGS[data[0] % len(ENCODINGS)] if data else ""
    try:
        out = decompress(encoding, data[1:], LIMIT)
    except ConsumeError:
        return
    assert len(out) <= LIMIT


def corpus() -> list[bytes]:
    """Return bodies in every encoding, including some that are too large."""
    found = []
    for index, encoding in enumerate(ENCODINGS):
        for size in SIZES:
            body = bytes(number % 251 for number in range(min(size, LIMIT))) + bytes(max(0, size - LIMIT))
            for name in encoding.split(", "):
                body = compress(name, body)
            found.append(bytes([index]) + body)
    return found


if __name__ == "__main__":
    sys.exit(main(inflate, corpus(), __doc__))
