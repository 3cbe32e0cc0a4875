import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.journal import records
from otelwp_agent.journal.records import (
    Commit,
    JournalDamage,
    JournalRecord,
    JournalSnapshot,
    RecordKind,
    RequestContext,
)
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal

MARKER = bytes(range(8))
bodies = st.lists(st.binary(max_size=200), min_size=1, max_size=12)


def file_of(tmp_path, data):
    path = tmp_path / "segment"
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


def rows(given_bodies):
    return [
        b"".join(records.entry(MARKER, seq, Signal.LOGS, 3, len(body), body)) for seq, body in enumerate(given_bodies)
    ]


def read(data):
    return list(records.read(memoryview(data), MARKER))


def test_what_was_written_is_read():
    metrics = ("traces", "otlp", "acme", 10, [5, 1, 0, 2], {"malformed": 2})
    origin = Origin("otlp", "http", "acme", {"user-agent": "WordPress/6.1"})
    commit = Commit(range(7, 9), [metrics], [3, 2**60], [(5, 0, "zipkin")])
    snapshot = JournalSnapshot(7, [metrics], 12.5, adjusted=True)
    data = b"".join(
        [
            *records.other(MARKER, RecordKind.SNAPSHOT, snapshot.encode()),
            *records.other(MARKER, RecordKind.CONTEXT, RequestContext(origin, ("traces", "traces/b")).encode(), 4),
            *records.entry(MARKER, 7, Signal.METRICS, 4, 2, b"body"),
            *records.other(MARKER, RecordKind.COMMIT, commit.encode()),
        ]
    )
    first, second, third, fourth = read(data)

    assert JournalSnapshot.decode(first.payload) == snapshot
    context = RequestContext.decode(second.payload)
    assert (second.context, context.pipelines, context.origin.headers) == (4, ("traces", "traces/b"), origin.headers)
    assert (third.seq, third.signal, third.context, third.items, third.body()) == (7, Signal.METRICS, 4, 2, b"body")
    found = Commit.decode(fourth.payload)
    assert (found.entries, list(found.accounts), list(found.released)) == (range(7, 9), [metrics], [3, 2**60])
    assert list(found.branches) == [(5, 0, "zipkin")]


def test_an_entry_that_moves_knows_what_it_was():
    (old,) = read(b"".join(records.entry(MARKER, 9, Signal.TRACES, 1, 3, b"spans")))
    (new,) = read(b"".join(records.moved(MARKER, 12, 2, old)))
    assert (new.kind, new.seq, new.context, new.items, new.moved_from(), new.body()) == (
        RecordKind.MOVED, 12, 2, 3, 9, b"spans",
    )  # fmt: skip


@given(bodies, st.data())
@settings(max_examples=60)
def test_a_flipped_bit_costs_one_record_and_no_other(given_bodies, data):
    pieces = rows(given_bodies)
    whole = bytearray(b"".join(pieces))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    found = read(bytes(whole))

    left = [record.seq for record in found if isinstance(record, JournalRecord)]
    ends = [sum(map(len, pieces[: number + 1])) for number in range(len(pieces))]
    hit = next(number for number, end in enumerate(ends) if place < end)
    assert left == [number for number in range(len(pieces)) if number != hit]
    (damage,) = [each for each in found if isinstance(each, JournalDamage)]
    assert (damage.offset, damage.length) == (sum(map(len, pieces[:hit])), len(pieces[hit]))


@given(bodies, st.data())
@settings(max_examples=60)
def test_what_is_cut_off_costs_the_last_record_alone(given_bodies, data):
    pieces = rows(given_bodies)
    whole = b"".join(pieces)
    cut = data.draw(st.integers(1, len(pieces[-1])))
    found = read(whole[:-cut])
    assert [record.seq for record in found if isinstance(record, JournalRecord)] == list(range(len(pieces) - 1))


@given(bodies, st.integers(40, 300), st.data())
@settings(max_examples=60)
def test_reading_by_windows_finds_the_same(tmp_path_factory, given_bodies, window, data):
    whole = bytearray(b"".join(rows(given_bodies)))
    if data.draw(st.booleans()):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 255
    fd = file_of(tmp_path_factory.mktemp("journal"), bytes(whole))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "WINDOW", window)
        found = list(records.scan(fd, MARKER, len(whole)))
    os.close(fd)

    def told(each):
        if isinstance(each, JournalDamage):
            return ("damage", each.offset, each.length)
        return ("record", each.offset, each.seq, bytes(each.payload))

    assert [told(each) for each in found] == [told(each) for each in read(bytes(whole))]


def test_a_body_cannot_pretend_to_be_a_record():
    forged = b"".join(records.entry(b"\0" * 8, 99, Signal.TRACES, 0, 1, b"forged"))
    pieces = rows([b"a", forged, b"b"])
    broken = bytearray(b"".join(pieces))
    broken[len(pieces[0]) + 2] ^= 1  # so that the reader looks for the next record, inside the body as well
    assert [each.seq for each in read(bytes(broken)) if isinstance(each, JournalRecord)] == [0, 2]
