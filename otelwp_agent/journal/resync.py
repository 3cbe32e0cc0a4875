"""Iterate over a sequence of records and skip damage between them. No I/O.

Every record begins with the same marker, random bytes that no sender of telemetry knows. After damage the next
record is where the marker is found again and the checksum is correct.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator


class _Record(Protocol):
    @property
    def end(self) -> int:
        """Offset of the next record."""


R = TypeVar("R", bound=_Record)


def walk(
    data: bytes | mmap.mmap, marker: bytes, offset: int, read_one: Callable[[int], R | None]
) -> Iterator[tuple[R | None, int, int]]:
    """Yield each record from `offset` on, or `None` for damage, with where it begins and ends.

    `read_one` returns the record at an offset, or `None` if there is none that is whole and sound.
    """
    end = len(data)
    while offset < end:
        begin, record = offset, read_one(offset)
        if record is not None:
            offset = record.end  # before the caller gets it and may change its offset
        else:
            offset = data.find(marker, begin + 1)
            while offset >= 0 and read_one(offset) is None:
                offset = data.find(marker, offset + 1)
            if offset < 0:
                offset = end
        yield record, begin, offset
