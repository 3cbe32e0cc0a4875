import pytest

from otelwp_agent.journal.draft import Draft
from otelwp_agent.journal.records import Commit, Context, Kind, Snapshot
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Ledger
from otelwp_agent.model.signal import Signal

ACCOUNT = ("traces", "otlp", "", 5, [1, 0, 0, 0], {})


class Request:
    def __init__(self, body, tenant=""):
        self.batch = Batch(Signal.LOGS, body, 2, Origin("otlp", "http", tenant), ())
        self.key = (tenant,)
        self.pipelines = ("logs",)
        self.ledgers = ()

    def origin(self):
        return self.batch.origin


@pytest.fixture
def segment(tmp_path):
    segment = Segment.create(tmp_path, 1, 7)
    yield segment
    segment.close()


def write(draft):
    """Write it as the journal does and return the records that are in the file."""
    segment = draft.segment
    segment.write(draft.parts, sync=False)
    assert draft.end == segment.path.stat().st_size
    segment.size = draft.end
    return list(segment.scan())


def test_a_first_write_has_a_snapshot_each_context_twice_the_entries_and_a_commit(segment):
    numbers = {("of the segment before",): 0}
    draft = Draft(segment, numbers)
    draft.begin_segment(Snapshot(7, [ACCOUNT], 0.0))
    for request in (Request(b"a"), Request(b"b", "shop"), Request(b"c")):
        draft.add(request)
    draft.branches.append((7, 0, "jaeger"))
    draft.commit({Ledger(("logs", "otlp", "")): ACCOUNT}, [(segment, 0)], [("otlp_http", 3, 2, {}, 1)])
    records = write(draft)
    assert [record.kind for record in records] == [
        Kind.SNAPSHOT, Kind.CONTEXT, Kind.CONTEXT, Kind.ENTRY, Kind.CONTEXT, Kind.CONTEXT, Kind.ENTRY, Kind.ENTRY,
        Kind.COMMIT,
    ]  # fmt: skip
    entries = [record for record in records if record.kind is Kind.ENTRY]
    assert [(entry.seq, entry.body(), entry.items, entry.context) for entry in entries] == [
        (7, b"a", 2, 0),
        (8, b"b", 2, 1),
        (9, b"c", 2, 0),
    ]
    assert [spot[0] for spot in draft.spots] == [entry.offset for entry in entries]
    commit = Commit.decode(records[-1].payload)
    assert (commit.entries, commit.accounts, list(commit.released)) == (range(7, 10), [ACCOUNT], [7])
    assert (commit.branches, commit.exporters) == ([(7, 0, "jaeger")], [("otlp_http", 3, 2, {}, 1)])
    assert (draft.next, numbers) == (10, {("",): 0, ("shop",): 1})


def test_a_context_that_the_segment_has_is_not_written_again_and_one_that_failed_is(segment):
    numbers = {}
    first = Draft(segment, numbers)
    first.add(Request(b"a"))
    write(first)
    failed = Draft(segment, numbers)
    failed.add(Request(b"b"))
    failed.add(Request(b"c", "shop"))
    assert list(failed.contexts) == [1]
    failed.forget_contexts()
    assert numbers == {("",): 0}
    again = Draft(segment, numbers)
    again.add(Request(b"c", "shop"))
    assert [context.origin.tenant for context in again.contexts.values()] == ["shop"]


def test_what_moves_brings_along_its_context_what_is_done_of_it_and_its_old_number(segment, tmp_path):
    old = Segment.create(tmp_path, 0, 3)
    before = Draft(old, {})
    before.add(Request(b"old", "shop"))
    record = write(before)[-1]
    old.close()
    draft = Draft(segment, {})
    context = Context(Origin("otlp", "http", "shop"), ("logs",))
    draft.move(old, 0, record, context, frozenset({(0, "jaeger")}))
    draft.add(Request(b"new"))
    draft.commit({}, [], ())
    records = write(draft)
    (moved,) = [record for record in records if record.kind is Kind.MOVED]
    assert (moved.seq, moved.moved_from(), moved.body(), moved.items, moved.signal) == (7, 3, b"old", 2, Signal.LOGS)
    assert draft.contexts[moved.context] == context
    assert draft.branches == [(7, 0, "jaeger")]
    commit = Commit.decode(records[-1].payload)
    assert commit.entries == range(8, 9), "what has moved was accepted before"
    assert draft.moved == [(old, 0, moved.end - moved.offset)]


def test_a_draft_knows_where_each_entry_is_its_context_and_its_items(segment):
    draft = Draft(segment, {})
    requests = [Request(b"a"), Request(b"b", "shop")]
    for request in requests:
        draft.add(request)
    entries = [record for record in write(draft) if record.kind is Kind.ENTRY]
    assert draft.spots == [(entry.offset, entry.context, 2) for entry in entries]
    assert draft.requests == requests
    assert [(number, each.origin.tenant, each.pipelines) for number, each in draft.contexts.items()] == [
        (0, "", ("logs",)), (1, "shop", ("logs",))
    ]  # fmt: skip


def test_entries_that_move_share_a_context_of_the_same_sender_and_pipelines_alone(segment, tmp_path):
    old = Segment.create(tmp_path, 0, 3)
    before = Draft(old, {})
    for number in range(4):
        before.add(Request(b"old %d" % number))
    entries = [record for record in write(before) if record.kind is Kind.ENTRY]
    old.close()
    origins = [Origin("otlp", "http", "a"), Origin("otlp", "http", "b"), Origin("otlp", "http", "a")]
    pipelines = [("logs",), ("logs",), ("logs",), ("logs", "logs/2")]
    draft = Draft(segment, {})
    for index, (record, names) in enumerate(zip(entries, pipelines, strict=True)):
        draft.move(old, index, record, Context([*origins, origins[0]][index], names), frozenset({(0, f"x{index}")}))
    records = write(draft)
    moved = [record for record in records if record.kind is Kind.MOVED]
    assert [record.context for record in moved] == [0, 1, 0, 2]
    assert [(record.context, record.kind) for record in records if record.kind is Kind.CONTEXT] == [
        (number, Kind.CONTEXT) for number in (0, 0, 1, 1, 2, 2)
    ]
    assert draft.spots == [(record.offset, record.context, 2) for record in moved]
    assert draft.branches == [(7, 0, "x0"), (8, 0, "x1"), (9, 0, "x2"), (10, 0, "x3")]
    assert [(index, size) for _, index, size in draft.moved] == [
        (at, record.end - record.offset) for at, record in enumerate(moved)
    ]


def test_a_commit_names_what_is_released_by_its_number(segment):
    draft = Draft(segment, {})
    draft.commit({}, [(segment, 2), (segment, 5)], (), [3])
    (record,) = write(draft)
    assert sorted(Commit.decode(record.payload).released) == [3, 9, 12]
