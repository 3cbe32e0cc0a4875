"""Read JSON with the errors that senders make: text in Latin-1, a byte order mark, lone surrogates."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import json_slices
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.json_slices import Lazy

_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_BOM = b"\xef\xbb\xbf"


def load(data: bytes, repaired: Callable[[str], None], max_items: int = DEFAULT_MAX_ITEMS, lazy: Lazy = "") -> Any:  # noqa: ANN401 - any JSON value
    """Return the document; raise `MalformedError` with the line and column (of a large document: within a slice).

    Bytes that are not UTF-8 are read as Latin-1, as PHP wrote them, and a lone surrogate as U+FFFD. In both cases
    `repaired` is called with `invalid_utf8`. Raises `TooLargeError` if there are too many values for `max_items`. With
    `lazy`, a long array is a `json_slices.Sliced`, and reading that raises the same errors.
    """
    if len(data) < json_slices.LARGE:
        return _load(data, repaired)
    repairs: set[str] = set()

    def once(kind: str) -> None:
        if kind not in repairs:
            repairs.add(kind)
            repaired(kind)

    return json_slices.loads(data, lambda piece: _load(piece, once), max_items, lazy)


def _load(data: bytes, repaired: Callable[[str], None]) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        problem = error
    data, changed = _readable(data)
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        problem = error
    else:
        if changed:
            repaired("invalid_utf8")
        return document
    message = f"the body is not JSON: {problem}"
    raise MalformedError(message) from None


def _readable(data: bytes) -> tuple[bytes, bool]:
    """Return `data` as valid JSON if possible, and whether the text was changed."""
    data = data.removeprefix(_BOM)
    text = data
    try:
        data.decode()
    except UnicodeDecodeError:
        escaped = data.decode(errors="surrogateescape")
        for byte in range(0x80, 0x100):  # much faster than a regular expression if there are many
            escaped = escaped.replace(chr(0xDC00 + byte), chr(byte))
        text = escaped.encode()
    if b"\\ud" in text or b"\\uD" in text:
        text = _LONE_SURROGATE.sub(lambda _: rb"\ufffd", text)  # a function, so that other threads may run
    return text, text != data
