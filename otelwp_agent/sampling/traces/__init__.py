"""Find the traces in a request, and which of them it contains completely.

::

    request, pieces = read(body, marks)     # one piece for each trace: reading.py
    request.select([b"", None, …])          # a request with some of them
    request.parts([0], request.heads(), …)  # the framed spans of one, with their heads: framing.py

The extension module in C (`model/native/`) reads requests with the usual layout. For all other requests, and where it
could not be built, `reading` does the same in Python at about a tenth of the speed.
"""

from __future__ import annotations

from otelwp_agent.model import native
from otelwp_agent.sampling.traces import reading
from otelwp_agent.sampling.traces.reading import (
    DUPLICATES,
    ERROR,
    INVALID,
    ROOTED,
    WHOLE,
    Choice,
    Part,
    Piece,
    TraceRequest,
)

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
    "TraceRequest",
    "read",
]

_native = native.extension
NATIVE = _native is not None
"""Whether the extension module is used."""


def read(
    body: bytes, marks: tuple[bytes, ...] | None = None, *, name: bool = False
) -> tuple[TraceRequest, list[Piece]]:
    """Find the traces of a request, as `reading.read` describes. Pieces may be plain tuples."""
    found = None if _native is None else _native.read(body, marks, name)
    return reading.read(body, marks, name) if found is None else found
