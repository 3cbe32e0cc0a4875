import json
import os
import struct
import zlib

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
    return list(records.read(data, MARKER))


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


def record(kind, payload, *, signal=0, context=0, items=0, seq=0):
    """Return a record as the description of the format has it."""
    head = struct.pack("<8sBBHIIQ", MARKER, kind, signal, context, len(payload), items, seq)
    return head + struct.pack("<I", zlib.crc32(head + payload)) + payload


@pytest.mark.parametrize(
    ("signal", "number"), [(Signal.TRACES, 0), (Signal.METRICS, 1), (Signal.LOGS, 2)], ids=["traces", "metrics", "logs"]
)
def test_entries_have_the_described_format(signal, number):
    written = b"".join(records.entry(MARKER, 2**40, signal, 7, 5, b"body"))
    assert written == record(3, b"body", signal=number, context=7, items=5, seq=2**40)
    (old,) = read(written)
    moved = b"".join(records.moved(MARKER, 2**41, 8, old))
    assert moved == record(4, struct.pack("<Q", 2**40) + b"body", signal=number, context=8, items=5, seq=2**41)
    assert read(moved)[0].signal is signal


def test_the_body_of_an_entry_is_not_copied():
    body = bytes(100)
    assert records.entry(MARKER, 1, Signal.TRACES, 0, 1, body)[1] is body


def test_other_records_have_the_described_format():
    assert b"".join(records.other(MARKER, RecordKind.SNAPSHOT, b"sums")) == record(1, b"sums")
    assert b"".join(records.other(MARKER, RecordKind.CONTEXT, b"origin", 9)) == record(2, b"origin", context=9)
    assert b"".join(records.other(MARKER, RecordKind.COMMIT, b"")) == record(5, b"")


def test_a_context_is_stored_as_json_and_read_again():
    origin = Origin("otlp/2", "grpc", "acme", {"user-agent": "WordPress/6.1"})
    data = RequestContext(origin, ("a", "b")).encode()
    assert json.loads(data) == {
        "receiver": "otlp/2",
        "transport": "grpc",
        "tenant": "acme",
        "headers": {"user-agent": "WordPress/6.1"},
        "pipelines": ["a", "b"],
    }
    again = RequestContext.decode(memoryview(data))
    found = again.origin
    assert (found.receiver, found.transport, found.tenant, found.headers) == (
        "otlp/2", "grpc", "acme", {"user-agent": "WordPress/6.1"},
    )  # fmt: skip
    assert (again.pipelines, again.encodings) == (("a", "b"), ())


def test_a_context_has_the_encodings_of_its_bodies():
    context = RequestContext(Origin("otlp"), ("a",), ("zstd", "sealed"))
    assert RequestContext.decode(memoryview(context.encode())).encodings == ("zstd", "sealed")


def test_a_snapshot_is_stored_as_json():
    row = ("traces", "otlp", "acme", 10, [5, 1, 0, 2], {"malformed": 2})
    assert json.loads(JournalSnapshot(7, [row], 12.5).encode()) == {
        "first": 7, "accounts": [json.loads(json.dumps(row))], "time": 12.5, "adjusted": False,
    }  # fmt: skip


def test_a_commit_is_stored_as_json_between_its_length_and_the_released_entries():
    row = ("traces", "otlp", "", 10, [5, 1, 0, 2], {"malformed": 2})
    exporter = ("jaeger", 9, 4, {"malformed": 2}, 3)
    released = [3, 2**63 + 1]
    data = Commit(range(7, 9), [row], released, [(5, 0, "zipkin")], [exporter]).encode()
    (length,) = struct.unpack_from("<I", data)
    assert json.loads(data[4 : 4 + length]) == {
        "first": 7,
        "end": 9,
        "accounts": [json.loads(json.dumps(row))],
        "branches": [[5, 0, "zipkin"]],
        "exporters": [json.loads(json.dumps(exporter))],
    }
    assert data[4 + length :] == struct.pack("<2Q", *released)
    found = Commit.decode(memoryview(data))
    assert (found.entries, found.accounts, list(found.released)) == (range(7, 9), [row], released)
    assert (found.branches, found.exporters) == ([(5, 0, "zipkin")], [exporter])


def test_a_commit_without_changes_has_no_fields_for_them():
    data = Commit(range(2, 2)).encode()
    assert json.loads(data[4:]) == {"first": 2, "end": 2}
    found = Commit.decode(memoryview(data))
    assert (found.entries, list(found.released)) == (range(2, 2), [])
    assert (found.accounts, found.branches, found.exporters) == ([], [], [])


def test_a_record_with_another_marker_is_damage():
    data = b"".join(records.entry(MARKER[::-1], 1, Signal.TRACES, 0, 1, b"body"))
    assert read(data) == [JournalDamage(0, len(data))]


def test_a_payload_that_is_cut_off_is_damage_even_if_its_beginning_has_the_right_checksum():
    body = b"body\xee;#\x8f"
    data = record(3, body)
    head = data[: records.HEADER_BYTES - 4]
    assert zlib.crc32(head + body) == zlib.crc32(head + b"body"), "or the test tests nothing"
    assert [each.body() for each in read(data)] == [body]
    assert read(data[:-4]) == [JournalDamage(0, len(data) - 4)]


def test_an_entry_may_have_an_empty_body():
    data = b"".join(records.entry(MARKER, 1, Signal.TRACES, 0, 1, b""))
    assert [each.body() for each in read(data)] == [b""]


@pytest.mark.parametrize(
    "invalid",
    [
        record(0, b"body"),
        record(8, b"body"),
        record(0x83, b"body"),
        record(3, b"body", signal=3),
        record(3, b"body")[:-1],
        record(3, b"")[:-1],
        b"\x01" + record(3, b"body")[1:],
    ],
    ids=["kind 0", "kind 8", "encrypted", "signal 3", "cut payload", "cut header", "another marker"],
)
def test_a_record_with_an_invalid_field_is_damage(invalid):
    assert read(invalid) == [JournalDamage(0, len(invalid))]


def test_a_file_that_has_become_shorter_ends_with_damage(tmp_path):
    (data,) = rows([b"body"])
    fd = file_of(tmp_path, data)
    found = list(records.scan(fd, MARKER, len(data) + 100))
    os.close(fd)
    assert [type(each) for each in found] == [JournalRecord, JournalDamage]
    assert (found[1].offset, found[1].length) == (len(data), 100)


def test_damage_at_the_end_of_a_file_is_reported_once(tmp_path):
    (data,) = rows([b"body"])
    fd = file_of(tmp_path, data + b"torn")
    found = list(records.scan(fd, MARKER, len(data) + 4))
    os.close(fd)
    assert found[1:] == [JournalDamage(len(data), 4)]


def test_a_scan_may_begin_in_the_middle(tmp_path):
    first, second = rows([b"first", b"second"])
    fd = file_of(tmp_path, first + second)
    (found,) = records.scan(fd, MARKER, len(first + second), len(first))
    os.close(fd)
    assert (found.offset, found.seq) == (len(first), 1)


def test_a_window_grows_for_a_large_record_only(tmp_path, monkeypatch):
    real, sizes = os.pread, []

    def spy(fd, size, offset):
        sizes.append(size)
        return real(fd, size, offset)

    pieces = rows([b"a" * 20, b"b" * 300, b"c" * 60, b"d" * 60])
    fd = file_of(tmp_path, b"".join(pieces))
    monkeypatch.setattr(records, "WINDOW", 100)
    monkeypatch.setattr(os, "pread", spy)
    found = list(records.scan(fd, MARKER, sum(map(len, pieces))))
    os.close(fd)
    assert [each.seq for each in found] == [0, 1, 2, 3]
    assert sizes == [100, 100, 200, 400, 100, 92]
