"""Segments of a journal that a test writes record by record."""

import orjson

from otelwp_agent.journal import records
from otelwp_agent.journal.records import Commit, JournalRecord, JournalSnapshot, RecordKind, RequestContext
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal


def marker_of(number):
    """Return the marker of the segment with this number."""
    return bytes([number]) * 8


class WrittenSegment:
    """A segment file; every method appends a record, of the tenant `shop`, and returns the segment."""

    def __init__(self, directory, number=1):
        self.marker = marker_of(number)
        self.path = directory / f"{number:010d}-{self.marker.hex()}.journal"
        self.path.touch()
        self.offsets = []
        """Offset of each entry."""

    def snapshot(self, first, accounts=(), *, adjusted=False, messages=()):
        text = JournalSnapshot(first, accounts, 0.0, adjusted, messages).encode()
        return self._add(records.other(self.marker, RecordKind.SNAPSHOT, text))

    def context(self, number=0, pipelines=("traces",)):
        text = RequestContext(Origin("otlp", "http", "shop"), pipelines).encode()
        return self._add(records.other(self.marker, RecordKind.CONTEXT, text, number))

    def entry(self, seq, items, context=0, body=b"body"):
        self.offsets.append(self.path.stat().st_size)
        return self._add(records.entry(self.marker, seq, Signal.TRACES, context, items, body))

    def message(self, row):
        return self._add(records.other(self.marker, RecordKind.MESSAGE, orjson.dumps(row)))

    def moved(self, seq, old, items, context=0):
        self.offsets.append(self.path.stat().st_size)
        record = JournalRecord(0, RecordKind.ENTRY, memoryview(b"body"), old, items)
        return self._add(records.moved(self.marker, seq, context, record))

    def commit(self, entries, accounts=(), **changes):
        return self._add(records.other(self.marker, RecordKind.COMMIT, Commit(entries, accounts, **changes).encode()))

    def bytes(self, data):
        return self._add([data])

    def _add(self, parts):
        with self.path.open("ab") as file:
            file.writelines(parts)
        return self
