"""Cut a serialized message into pieces that can be parsed separately, so that no call of the parser takes long.

A message is a sequence of fields, and it is valid if each field is valid. So it can be cut between any two fields, also
inside nested messages: a piece has some consecutive fields of one message, inside the same nesting of messages as in
the whole. All pieces are valid if, and only if, the whole is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import MalformedError
from otelwp_agent.model.counting import (
    ENTRY,
    FIELDS,
    GROUP,
    LEAF,
    LENGTH,
    MAX_NESTING,
    PACKED,
    SHORT,
    TYPE,
    WireError,
    read_varint,
    skip,
)
from otelwp_agent.model.native import extension
from otelwp_agent.model.wire import varint

if TYPE_CHECKING:
    from collections.abc import Iterator

    Cut = tuple[int, int, bytes]
    """Start and end of a piece, and the numbers of the fields around it, from the outermost to the innermost."""


def pieces(body: bytes, schema: bytes, target: int) -> Iterator[bytes]:
    """Yield messages of about `target` bytes that are all valid if, and only if, `body` is.

    `schema` describes the message type of `body` (`counting.schema`); a larger field whose contents it does not
    describe becomes a piece of its own. Raises `MalformedError` if `body` is found to be malformed.
    """
    found = (cut if extension is None else extension.cut)(body, schema, target)
    if found is None:
        raise MalformedError("the body is not a serialized OTLP export request")
    view = memoryview(body)
    for start, end, path in found:
        yield _enclosed(view[start:end], path)


def _enclosed(fields: memoryview, path: bytes) -> bytes:
    """Return `fields` inside the length-delimited fields with the numbers in `path`."""
    heads: list[bytes] = []
    size = len(fields)
    for number in reversed(path):
        head = varint(number << 3 | LENGTH) + varint(size)
        heads.append(head)
        size += len(head)
    return b"".join([*reversed(heads), fields])


def cut(body: bytes, schema: bytes, target: int) -> list[Cut] | None:
    """Find pieces of at most `target` bytes; return `None` if the parts of `body` that are read are malformed.

    A larger field is cut inside if `schema` describes its contents; if not, it is a piece of its own. Groups larger
    than `target` are only checked: they are never a declared field. `native/cut.c` does the same.
    """
    try:
        return _cut(body, schema, target)
    except (WireError, IndexError):
        return None


def _cut(body: bytes, schema: bytes, target: int) -> list[Cut]:
    found: list[Cut] = []
    levels: list[tuple[int, int]] = []
    path = bytearray()
    at = run = kind = 0
    end = len(body)
    while True:
        if at == end:
            _add(found, run, at, path)
            if not levels:
                return found
            end, kind = levels.pop()
            path.pop()
            run = at
            continue
        field = at
        tag, inside = read_varint(body, at, end, SHORT)
        at = skip(body, inside, end, tag, len(levels))
        if at - run <= target:
            continue
        _add(found, run, field, path)
        run = field
        if at - field <= target:
            continue
        if tag & 7 == GROUP:
            run = at
            continue
        if tag & 7 != LENGTH or tag >> 3 >= FIELDS or len(levels) >= MAX_NESTING:
            continue
        entry = kind * TYPE + (tag >> 3) * ENTRY
        child, _, flags = schema[entry : entry + ENTRY]
        inside = read_varint(body, inside, end, SHORT)[1]
        if flags & PACKED:
            _cut_packed(body, inside, at, target, found, bytes([*path, tag >> 3]))
            run = at
        elif child and child != LEAF:
            levels.append((end, kind))
            path.append(tag >> 3)
            end, kind, at, run = at, child - 1, inside, inside


def _add(found: list[Cut], start: int, end: int, path: bytes | bytearray) -> None:
    if end > start:
        found.append((start, end, bytes(path)))


def _cut_packed(body: bytes, at: int, end: int, target: int, found: list[Cut], path: bytes) -> None:  # noqa: PLR0917, PLR0913
    """Cut a packed field between its numbers."""
    while end - at > target:
        stop = at + target
        while body[stop - 1] > 0x7F:  # noqa: PLR2004 - not the last byte of a number
            stop += 1
            if stop > end:
                raise WireError
        _add(found, at, stop, path)
        at = stop
    _add(found, at, end, path)
