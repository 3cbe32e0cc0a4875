"""How much there is of something: traces, spans, bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Traces, their spans and their bytes. `bytes` are those of spans, uncompressed OTLP."""

    traces: int = 0
    spans: int = 0
    bytes: int = 0

    def add(self, traces: int, spans: int, size: int) -> None:
        """Count more."""
        self.traces += traces
        self.spans += spans
        self.bytes += size

    def __add__(self, other: Counts) -> Counts:
        """Return the sum."""
        return Counts(self.traces + other.traces, self.spans + other.spans, self.bytes + other.bytes)
