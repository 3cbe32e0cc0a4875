from dataclasses import replace

import orjson
import pytest

from otelwp_agent.journal.commit_builder import CommitBuilder
from otelwp_agent.journal.records import Commit, JournalSnapshot, RecordKind, RequestContext, read
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.message import Message
from otelwp_agent.model.receipt import Ledger
from otelwp_agent.model.signal import Signal
from otelwp_agent.sealing.message_memory import row_of_message
from tests.journal.conftest import KEYS

ACCOUNT = ("traces", "otlp", "", 5, [1, 0, 0, 0], {})


class Request:
    def __init__(self, body, tenant=""):
        self.batch = Batch(Signal.LOGS, body, 2, Origin("otlp", "http", tenant), ())
        self.key = (tenant,)
        self.pipelines = ("logs",)
        self.ledgers = ()

    def origin(self):
        return self.batch.origin


@pytest.fixture(params=[None, KEYS], ids=["plain", "encrypted"])
def keys(request):
    return request.param


@pytest.fixture
def segment(tmp_path, keys):
    segment = Segment.create(tmp_path, 1, 7, keys)
    yield segment
    segment.close()


def write(builder):
    """Write it as the journal does and return the records that are in the file."""
    segment = builder.segment
    segment.write(builder.parts, sync=False)
    assert builder.end == segment.path.stat().st_size
    segment.size = builder.end
    return list(segment.scan())


def test_a_first_write_has_a_snapshot_each_context_twice_the_entries_and_a_commit(segment):
    numbers = {("of the segment before",): 0}
    builder = CommitBuilder(segment, numbers)
    builder.begin_segment(JournalSnapshot(7, [ACCOUNT], 0.0))
    for request in (Request(b"a"), Request(b"b", "shop"), Request(b"c")):
        builder.add(request)
    builder.branches.append((7, 0, "jaeger"))
    builder.commit({Ledger(("logs", "otlp", "")): ACCOUNT}, [(segment, 0)], [("otlp_http", 3, 2, {}, 1)])
    records = write(builder)
    context, entry = RecordKind.CONTEXT, RecordKind.ENTRY
    kinds = [RecordKind.SNAPSHOT, context, context, entry, context, context, entry, entry, RecordKind.COMMIT]
    assert [record.kind for record in records] == kinds
    entries = [record for record in records if record.kind is RecordKind.ENTRY]
    assert [(entry.seq, entry.body(), entry.items, entry.context) for entry in entries] == [
        (7, b"a", 2, 0),
        (8, b"b", 2, 1),
        (9, b"c", 2, 0),
    ]
    assert [spot[0] for spot in builder.spots] == [entry.offset for entry in entries]
    commit = Commit.decode(records[-1].payload)
    assert (commit.entries, commit.accounts, list(commit.released)) == (range(7, 10), [ACCOUNT], [7])
    assert (commit.branches, commit.exporters) == ([(7, 0, "jaeger")], [("otlp_http", 3, 2, {}, 1)])
    assert (builder.next, numbers) == (10, {("",): 0, ("shop",): 1})


def test_an_encrypted_segment_begins_with_two_copies_of_its_data_key(tmp_path):
    segment = Segment.create(tmp_path, 1, 7, KEYS)
    builder = CommitBuilder(segment, {})
    builder.begin_segment(JournalSnapshot(7, [], 0.0))
    write(builder)
    data = segment.path.read_bytes()
    segment.close()
    keys = [record for record in read(data, segment.marker) if getattr(record, "kind", None) is RecordKind.KEY]
    assert [bytes(record.payload) for record in keys] == [segment.data_key] * 2


@pytest.mark.parametrize("keys", [None], ids=["plain"])
def test_a_context_that_the_segment_has_is_not_written_again_and_one_that_failed_is(segment):
    numbers = {}
    first = CommitBuilder(segment, numbers)
    first.add(Request(b"a"))
    write(first)
    failed = CommitBuilder(segment, numbers)
    failed.add(Request(b"b"))
    failed.add(Request(b"c", "shop"))
    assert list(failed.contexts) == [1]
    failed.forget_contexts()
    assert numbers == {("",): 0}
    again = CommitBuilder(segment, numbers)
    again.add(Request(b"c", "shop"))
    assert [context.origin.tenant for context in again.contexts.values()] == ["shop"]


def test_what_moves_brings_along_its_context_what_is_done_of_it_and_its_old_number(segment, tmp_path, keys):
    old = Segment.create(tmp_path, 0, 3, keys)
    before = CommitBuilder(old, {})
    before.add(Request(b"old", "shop"))
    record = write(before)[-1]
    old.close()
    builder = CommitBuilder(segment, {})
    context = RequestContext(Origin("otlp", "http", "shop"), ("logs",))
    builder.move(old, 0, record, context, frozenset({(0, "jaeger")}))
    builder.add(Request(b"new"))
    builder.commit({}, [], ())
    records = write(builder)
    (moved,) = [record for record in records if record.kind is RecordKind.MOVED]
    assert (moved.seq, moved.moved_from(), moved.body(), moved.items, moved.signal) == (7, 3, b"old", 2, Signal.LOGS)
    assert builder.contexts[moved.context] == context
    assert builder.branches == [(7, 0, "jaeger")]
    commit = Commit.decode(records[-1].payload)
    assert commit.entries == range(8, 9), "what has moved was accepted before"
    assert builder.moved == [(old, 0, moved.end - moved.offset)]


def test_a_builder_knows_where_each_entry_is_its_context_and_its_items(segment):
    builder = CommitBuilder(segment, {})
    requests = [Request(b"a"), Request(b"b", "shop")]
    for request in requests:
        builder.add(request)
    entries = [record for record in write(builder) if record.kind is RecordKind.ENTRY]
    assert builder.spots == [(entry.offset, entry.context, 2) for entry in entries]
    assert builder.requests == requests
    assert [(number, each.origin.tenant, each.pipelines) for number, each in builder.contexts.items()] == [
        (0, "", ("logs",)), (1, "shop", ("logs",))
    ]  # fmt: skip


def test_the_encodings_of_bodies_are_in_their_contexts_and_separate_those_of_moved_entries(segment, tmp_path):
    old = Segment.create(tmp_path, 0, 3)
    request = Request(b"zstd")
    request.batch.encodings = ("zstd",)
    before = CommitBuilder(old, {})
    before.add(request)
    record = write(before)[-1]
    old.close()
    context = before.contexts[0]
    assert (context.pipelines, context.encodings) == (("logs",), ("zstd",))
    builder = CommitBuilder(segment, {})
    for index, each in enumerate((context, replace(context, encodings=()))):
        builder.move(old, index, record, each, frozenset())
    assert [spot[1] for spot in builder.spots] == [0, 1]
    assert [each.encodings for each in builder.contexts.values()] == [("zstd",), ()]


def test_the_message_of_a_request_is_before_its_entry(segment):
    request = Request(b"a")
    request.batch.message = Message("otlp", "acme", b"0123456789abcdef", 5000)
    builder = CommitBuilder(segment, {})
    builder.add(request)
    message, entry = write(builder)[-2:]
    assert (message.kind, entry.kind) == (RecordKind.MESSAGE, RecordKind.ENTRY)
    assert orjson.loads(message.payload) == [*row_of_message(request.batch.message)]


def test_entries_that_move_share_a_context_of_the_same_sender_and_pipelines_alone(segment, tmp_path, keys):
    old = Segment.create(tmp_path, 0, 3, keys)
    before = CommitBuilder(old, {})
    for number in range(4):
        before.add(Request(b"old %d" % number))
    entries = [record for record in write(before) if record.kind is RecordKind.ENTRY]
    old.close()
    origins = [Origin("otlp", "http", "a"), Origin("otlp", "http", "b"), Origin("otlp", "http", "a")]
    pipelines = [("logs",), ("logs",), ("logs",), ("logs", "logs/2")]
    builder = CommitBuilder(segment, {})
    for index, (record, names) in enumerate(zip(entries, pipelines, strict=True)):
        builder.move(
            old, index, record, RequestContext([*origins, origins[0]][index], names), frozenset({(0, f"x{index}")})
        )
    records = write(builder)
    moved = [record for record in records if record.kind is RecordKind.MOVED]
    assert [record.context for record in moved] == [0, 1, 0, 2]
    assert [(record.context, record.kind) for record in records if record.kind is RecordKind.CONTEXT] == [
        (number, RecordKind.CONTEXT) for number in (0, 0, 1, 1, 2, 2)
    ]
    assert builder.spots == [(record.offset, record.context, 2) for record in moved]
    assert builder.branches == [(7, 0, "x0"), (8, 0, "x1"), (9, 0, "x2"), (10, 0, "x3")]
    assert [(index, size) for _, index, size in builder.moved] == [
        (at, record.end - record.offset) for at, record in enumerate(moved)
    ]


def test_a_commit_names_what_is_released_by_its_number(segment):
    builder = CommitBuilder(segment, {})
    builder.commit({}, [(segment, 2), (segment, 5)], (), [3])
    (record,) = write(builder)
    assert sorted(Commit.decode(record.payload).released) == [3, 9, 12]
