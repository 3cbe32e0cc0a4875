"""Counts of traces, spans and bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Numbers of traces, their spans, and the spans' bytes (uncompressed OTLP)."""

    traces: int = 0
    spans: int = 0
    bytes: int = 0

    def add(self, traces: int, spans: int, size: int) -> None:
        """Add to each number."""
        self.traces += traces
        self.spans += spans
        self.bytes += size

    def __add__(self, other: Counts) -> Counts:
        """Return the sum."""
        return Counts(self.traces + other.traces, self.spans + other.spans, self.bytes + other.bytes)
