"""Check large requests in steps, so that no call holds the GIL for long.

The C extension counts and checks without the GIL, and Python code releases it regularly. What protobuf has to check
completely is cut into pieces (`cutting`), and each piece is parsed on its own. The verdicts are those of
`checking.checker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.model import checking, cutting, projections
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS, SMALLEST, checker, refuse_too_many
from otelwp_agent.model.messages import request_class
from otelwp_agent.model.native import extension

if TYPE_CHECKING:
    from collections.abc import Generator

    from otelwp_agent.model.signal import Signal

LARGE_KEYS = 4 * 2**20
"""Bytes from which on a request is checked in steps. The C extension counts the densest smaller request in 20 ms."""

LARGE_FULL = 512 * 1024
"""The same for `full` validation. Protobuf parses the densest smaller request, empty spans, in 40 ms."""

LARGE_PURE = 32 * 1024
"""The same without the C extension, if requests of this size are counted. Python counts the densest one in 40 ms."""

PIECE = 256 * 1024
"""Approximate bytes of a piece. Protobuf parses the densest piece, empty spans, in 20 ms, and spans with attributes in
1 ms."""

OBJECTS = 64
"""Estimated memory of the objects that one byte of a piece becomes while it is parsed, in bytes; for typical spans it
is 5, and for empty spans 90."""


class StepwiseChecker:
    """Checks large requests of one signal as `checker` with the same arguments does, but in steps.

    `large` is the size in bytes from which on requests should be checked in steps; `memory` is the estimated memory in
    bytes that a check needs.
    """

    __slots__ = ("_check", "_full", "_max_items", "_piece", "_signal", "large", "memory")

    def __init__(
        self, signal: Signal, max_items: int = DEFAULT_MAX_ITEMS, *, full: bool = False, piece: int = PIECE
    ) -> None:
        """Check pieces of about `piece` bytes."""
        self._signal = signal
        self._max_items = max_items
        self._full = full
        self._piece = piece
        self._check = checker(signal, max_items)
        self.memory = OBJECTS * piece if full else 0
        self.large = LARGE_FULL if full else LARGE_KEYS
        if extension is None:
            self.large = min(self.large, max(SMALLEST * max_items, LARGE_PURE))

    def steps(self, body: bytes) -> Generator[None, None, int]:
        """Check a request and return the number of its items; yield between steps.

        Raises `MalformedError` and `TooLargeError` as `checker` does.
        """
        items = self._check(body)
        if self._full:
            kind = request_class(self._signal)
            refuse_too_many(body, kind, self._max_items)
            for piece in cutting.pieces(body, checking.schema(kind), self._piece):
                yield
                projections.parse(kind.FromString, piece)
        return items
