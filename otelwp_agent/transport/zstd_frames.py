"""Check the structure of zstd data (RFC 8878, section 3.1) before they are decompressed.

The library's reader reports neither a truncated frame nor the end of the last frame, and blocks with only a few bytes
of data make it work without output. Therefore this module reads the headers of all frames and blocks first.
"""

from __future__ import annotations

from typing import NoReturn

from otelwp_agent.errors import MalformedError

_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"
"""The upper three bytes of the magic numbers of skippable frames; the lower one is 0x50 to 0x5F."""
_SIZE_BYTES = (0, 2, 4, 8)
_DICTIONARY_BYTES = (0, 1, 2, 4)
_RLE, _RESERVED = 1, 3


def check_frames(data: bytes, most: int) -> None:
    """Raise `MalformedError` unless `data` are complete frames, with at most `most` frames and blocks in total."""
    position, left = 0, most
    if not data:
        _cut_short()
    while position < len(data):
        left -= 1
        if data.startswith(_MAGIC, position):
            position, left = _frame_end(data, position + len(_MAGIC), left)
        elif data.startswith(_SKIPPABLE, position + 1) and data[position] >> 4 == 5:  # noqa: PLR2004 - 0x50 to 0x5F
            position += 8 + int.from_bytes(data[position + 4 : position + 8], "little")
        elif len(data) - position < len(_MAGIC):
            _cut_short()
        elif position:
            raise MalformedError(f"{len(data) - position} bytes follow the end of the zstd body")
        else:
            raise MalformedError("the body is not zstd: it does not begin with a frame")
        if left < 0:
            raise MalformedError(
                f"the zstd body has more than {most} frames and blocks, which is too many for its size"
            )
    if position > len(data):
        _cut_short()


def _frame_end(data: bytes, position: int, left: int) -> tuple[int, int]:
    """Return the end of the frame whose header begins at `position`, and how many frames and blocks are left."""
    if position >= len(data):
        _cut_short()
    descriptor = data[position]
    single_segment = descriptor & 0x20
    position += 1 + (not single_segment) + _DICTIONARY_BYTES[descriptor & 3]
    position += _SIZE_BYTES[descriptor >> 6] or (1 if single_segment else 0)
    last = 0
    while not last and left >= 0:
        if position + 3 > len(data):
            _cut_short()
        header = data[position] | data[position + 1] << 8 | data[position + 2] << 16
        last, kind = header & 1, header >> 1 & 3
        if kind == _RESERVED:
            raise MalformedError(f"the body is not zstd: the block at byte {position} has a reserved type")
        position += 3 + (1 if kind == _RLE else header >> 3)
        left -= 1
    return position + (4 if descriptor & 4 else 0), left


def _cut_short() -> NoReturn:
    raise MalformedError("the zstd body is cut short")
