"""Instruments of the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from otelwp_agent.journal.entry_store import EntryStore
    from otelwp_agent.telemetry.metrics import Registry

BYTES = Instrument("otelwp_journal_bytes", "Bytes of the journal on disk.", InstrumentKind.GAUGE)
CAPACITY = Instrument("otelwp_journal_capacity_bytes", "Largest size of the journal on disk.", InstrumentKind.GAUGE)
ENTRIES = Instrument("otelwp_journal_entries", "Requests that are not settled.", InstrumentKind.GAUGE)
WAITING = Instrument(
    "otelwp_journal_waiting_entries",
    "Unsettled requests that wait on disk until an exporter has capacity.",
    InstrumentKind.GAUGE,
)
APPENDED = Instrument("otelwp_journal_appended_entries", "Requests that were written to the journal.")
REFUSED = Instrument(
    "otelwp_journal_refused_entries", "Requests that were not written; their senders got an error.", labels=("reason",)
)
REPLAYED = Instrument(
    "otelwp_journal_replayed_entries", "Requests that were read from disk again, to be fed to a pipeline."
)
COMMITS = Instrument("otelwp_journal_commits", "Writes to the journal; each holds all requests that waited.")
FAILURES = Instrument("otelwp_journal_write_failures", "Writes to the journal that failed.")
DURATION = Instrument(
    "otelwp_journal_commit_duration_seconds",
    "Duration of one write, with its fsync.",
    InstrumentKind.HISTOGRAM,
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1),
)
DISPLACED = Instrument(
    "otelwp_journal_displaced_segments",
    "Segments that were removed or replaced while the agent ran; their entries are copied to a new segment.",
)
LOST = Instrument(
    "otelwp_journal_lost_entries",
    "Largest possible number of acknowledged requests missing at the end of the journal when the agent started.",
)
UNREADABLE = Instrument(
    "otelwp_journal_unreadable_entries",
    "Requests that wait because the disk did not return them; reading is tried again each second.",
    InstrumentKind.GAUGE,
)
DAMAGED = Instrument(
    "otelwp_journal_damaged_bytes", "Bytes of the journal that were not a valid record when it was read."
)
INSTRUMENTS = (
    *(BYTES, CAPACITY, ENTRIES, WAITING, APPENDED, REFUSED, REPLAYED, COMMITS, FAILURES, DURATION, DAMAGED),
    *(UNREADABLE, DISPLACED, LOST),
)


class JournalMetrics:
    """Counters and gauges of one journal."""

    def __init__(self, entry_store: EntryStore, max_size: int, registry: Registry) -> None:
        """Bind the instruments."""
        registry.gauge(BYTES, lambda: entry_store.stored)
        registry.gauge(CAPACITY, lambda: max_size)
        registry.gauge(ENTRIES, lambda: entry_store.entries)
        registry.gauge(WAITING, lambda: entry_store.waiting)
        registry.gauge(UNREADABLE, lambda: len(entry_store.unreadable))
        self._registry = registry
        self.appended = registry.counter(APPENDED)
        self.replayed = registry.counter(REPLAYED)
        self.commits = registry.counter(COMMITS)
        self.failures = registry.counter(FAILURES)
        self.duration = registry.histogram(DURATION)
        self.damaged = registry.counter(DAMAGED)
        self.displaced = registry.counter(DISPLACED)
        self.lost = registry.counter(LOST)

    def refused(self, requests: int, reason: str) -> None:
        """Count what was not written."""
        self._registry.counter(REFUSED, reason=reason).add(requests)
