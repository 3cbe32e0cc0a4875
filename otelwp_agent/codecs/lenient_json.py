"""JSON as senders really write it: text in Latin-1, a byte order mark, halves of surrogate pairs."""

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
_ESCAPED = re.compile("[\udc80-\udcff]")


def load(data: bytes, mend: Callable[[str], None], max_items: int = DEFAULT_MAX_ITEMS, lazy: Lazy = "") -> Any:  # noqa: ANN401 - whatever stands in the JSON
    """Return the document; raise `MalformedError` that tells the line and column (of a large one, within a slice).

    Bytes that are not UTF-8 are read as Latin-1, as PHP wrote them, and half a surrogate pair as U+FFFD: either is told
    to `mend` as `invalid_utf8`. Raises `TooLargeError` if there are too many values for `max_items`.
    With `lazy`, a long array is a `json_slices.Sliced`, and reading that raises the same.
    """
    if len(data) < json_slices.LARGE:
        return _load(data, mend)
    mended: set[str] = set()

    def once(kind: str) -> None:
        if kind not in mended:
            mended.add(kind)
            mend(kind)

    return json_slices.loads(data, lambda piece: _load(piece, once), max_items, lazy)


def _load(data: bytes, mend: Callable[[str], None]) -> Any:  # noqa: ANN401 - whatever stands in the JSON
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        problem = error
    data, mended = _repaired(data)
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        problem = error
    else:
        if mended:
            mend("invalid_utf8")
        return document
    message = f"the body is not JSON: {problem}"
    raise MalformedError(message) from None


def _repaired(data: bytes) -> tuple[bytes, bool]:
    """Return `data` as JSON that can be read, if it can be made that, and whether its text is not what was sent."""
    data = data.removeprefix(_BOM)
    repaired = data
    try:
        data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="surrogateescape")
        repaired = _ESCAPED.sub(lambda found: chr(ord(found[0]) - 0xDC00), text).encode()
    if b"\\ud" in repaired or b"\\uD" in repaired:
        repaired = _LONE_SURROGATE.sub(lambda _: rb"\ufffd", repaired)  # a function, so that other threads may run
    return repaired, repaired != data
