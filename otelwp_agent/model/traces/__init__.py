"""Read from a request which traces it holds, and which of them it holds whole.

::

    request, pieces = read(body, marks)     # what it holds of each trace: reading.py
    request.select([b"", None, …])          # a request of some of them
    request.parts([0], request.heads(), …)  # the spans of one, framed, and what stands around them: framing.py

An extension module written in C reads requests that are laid out as usual (`native/`). Where it could not be built, and
for all other requests, `reading` does the same in Python, at some tenth of the speed.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from otelwp_agent.model import counting
from otelwp_agent.model.traces import reading
from otelwp_agent.model.traces.reading import DUPLICATES, ERROR, INVALID, ROOTED, WHOLE, Choice, Part, Piece, Request

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DUPLICATES",
    "ERROR",
    "INVALID",
    "NATIVE",
    "ROOTED",
    "WHOLE",
    "Choice",
    "Part",
    "Piece",
    "Request",
    "count",
    "find_runs",
    "read",
]

PURE = "OTELWP_PURE_PYTHON"
"""The environment variable that, if it is set to anything, leaves the extension module alone."""


def _load() -> Any:  # noqa: ANN401 - C has no types of Python's
    """Return the extension module; `None` if it is not there or not wanted."""
    if os.environ.get(PURE):
        return None
    try:
        return importlib.import_module("otelwp_agent.model.traces._native")
    except ImportError:  # there was no compiler
        return None


_native = _load()
NATIVE = _native is not None
"""Whether the extension module is there."""


def read(body: bytes, marks: tuple[bytes, ...] | None = None, *, name: bool = False) -> tuple[Request, list[Piece]]:
    """Find the traces of a request; `reading.read` says how. Pieces may be plain tuples."""
    found = None if _native is None else _native.read(body, marks, name)
    return reading.read(body, marks, name) if found is None else found


count = counting.count if _native is None else _native.count
"""Count what a message holds; `counting.count` says how."""

find_runs: Callable[[bytes, int], tuple[int, list[int]] | None] | None = getattr(_native, "find_runs", None)
"""Find where JSON can be cut; `json_slices.find_runs` says how, and does it where this is `None`."""
