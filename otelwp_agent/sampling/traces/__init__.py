"""Find the traces in a request, and which of them it contains completely.

::

    request, pieces = read(body, marks)     # one piece for each trace: reading.py
    request.select([b"", None, …])          # a request with some of them
    request.parts([0], request.heads(), …)  # the framed spans of one, with their heads: framing.py

An extension module written in C reads requests with the usual layout (`native/`). Without it, and for all other
requests, `reading` does the same in Python at about a tenth of the speed.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from otelwp_agent.sampling.traces import reading
from otelwp_agent.sampling.traces.reading import DUPLICATES, ERROR, INVALID, ROOTED, WHOLE, Choice, Part, Piece, Request

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
    "read",
]

PURE = "OTELWP_PURE_PYTHON"
"""Environment variable that disables the extension module if it is set to any value."""


def _load() -> Any:  # noqa: ANN401 - a module written in C has no Python types
    """Return the extension module; `None` if it is missing or disabled."""
    if os.environ.get(PURE):
        return None
    try:
        return importlib.import_module("otelwp_agent.sampling.traces._native")
    except ImportError:  # there was no compiler
        return None


_native = _load()
NATIVE = _native is not None
"""Whether the extension module is used."""


def read(body: bytes, marks: tuple[bytes, ...] | None = None, *, name: bool = False) -> tuple[Request, list[Piece]]:
    """Find the traces of a request, as `reading.read` describes. Pieces may be plain tuples."""
    found = None if _native is None else _native.read(body, marks, name)
    return reading.read(body, marks, name) if found is None else found
