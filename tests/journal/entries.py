"""Write segments entry by entry."""

import errno
import os

from otelwp_agent.journal import records
from otelwp_agent.journal.records import RequestContext
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal


def make(directory, number, first, *names):
    """Create a segment with a context for each of these pipelines."""
    segment = Segment.create(directory, number, first)
    segment.contexts = {at: RequestContext(Origin("otlp", "http"), (name,)) for at, name in enumerate(names)}
    return segment


def settle(entry_store, entry, *, parked=False, done=()):
    """Finish an entry; `parked` lets it wait for the branches that are not in `done`."""
    entry.parked, entry.done = parked, frozenset(done)
    return entry_store.end(entry)


def write(entry_store, segment, *spots):
    """Write entries with these contexts, items and bodies; return their `JournaledRequest`s."""
    if segment not in entry_store.segments:
        entry_store.segments.append(segment)
    entries = []
    for context, items, body in spots:
        offset = segment.size
        parts = records.entry(segment.marker, segment.end, Signal.TRACES, context, items, body)
        segment.size += segment.write(parts, sync=False)
        index = entry_store.add(segment, [(offset, context, items)])
        entries.append(entry_store.begin(segment, index, items, segment.size - offset))
    return entries


def counts(segment):
    """Return what a segment counts: entries and bytes not released, entries kept, entries that wait."""
    return (segment.live, segment.live_bytes, segment.kept, segment.waiting)


def always(_context, _done):
    """Let every entry be fed."""
    return True


def unreadable_at(monkeypatch, *offsets):
    """Let reading at these offsets fail."""
    real = os.pread

    def read(fd, size, offset):
        if offset in offsets:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", read)
