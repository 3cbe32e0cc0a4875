"""Read and write OTLP responses: `Export{Trace,Metrics,Logs}ServiceResponse` with its partial success.

The three messages have the same field numbers (opentelemetry-proto 1.9, collector/*/v1/*_service.proto):
`partial_success` is field 1, in which the number of rejected items is field 1 and the message field 2. So one reader
and one writer are enough for all signals. They are hand-written, because most responses are empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIGN = 1 << 63


def rejected(response: bytes) -> tuple[int, str]:
    """Return how many items the backend rejected, and its message (which may exist without rejected items).

    A response that cannot be parsed counts as a full success, because the status reported that the request was
    accepted.
    """
    items, message = 0, ""
    try:
        for number, partial in _fields(response):
            if number == 1 and isinstance(partial, bytes):
                for inner, value in _fields(partial):
                    if inner == 1 and isinstance(value, int):
                        items = value - 2 * _SIGN if value & _SIGN else value
                    elif inner == 2 and isinstance(value, bytes):  # noqa: PLR2004 - the field number
                        message = value.decode("utf-8", "replace")
    except (IndexError, ValueError):
        return 0, ""
    return max(items, 0), message


def partial_success(items: int, message: str) -> bytes:
    """Return the response for `items` rejected items, which must not be sent again; `message` is the reason."""
    text = message.encode()
    partial = (b"\x08" + _varint(items) if items else b"") + (b"\x12" + _varint(len(text)) + text if text else b"")
    return b"\x0a" + _varint(len(partial)) + partial


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a protobuf message; raise `IndexError` or `ValueError` if it is invalid."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        kind = tag & 7
        if kind == _VARINT:
            value, position = _read_varint(data, position)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, position = _read_varint(data, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("OTLP has no groups")
        end = position + size
        if end > len(data):
            raise ValueError("cut short")
        yield tag >> 3, data[position:end]
        position = end


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that marks that another byte follows
            return value & (2 * _SIGN - 1), position
        shift += 7
        if shift > 63:  # noqa: PLR2004 - ten bytes at most
            raise ValueError("varint too long")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
