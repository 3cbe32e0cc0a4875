"""What a journal reports and corrects when it is opened, and what it writes when it is closed."""

import errno
import os

import pytest
from structlog.testing import capture_logs

from otelwp_agent.journal import records
from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.journal.mark import Mark, read_mark
from otelwp_agent.journal.records import Commit, JournalSnapshot, RecordKind, RequestContext
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from tests.journal.conftest import KEYS, open_files
from tests.kit.graphs import until


@pytest.fixture
def log():
    with capture_logs() as lines:
        yield lines


def overwrite(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 4)


def snapshot_of(path):
    segment = Segment.open(path, write=False, keys=KEYS)
    first = next(iter(segment.scan()))
    segment.close()
    return JournalSnapshot.decode(first.payload)


async def next_snapshot(life, body):
    """Return the first record of the segment that a run begins."""
    await life.put(body(99))
    return snapshot_of(life.journal._store.current.path)


async def test_a_new_journal_has_directory_capacity_and_reserve(live):
    life = live(max_size="3MiB")
    assert life.journal.max_size == life.registry.value("otelwp_journal_capacity_bytes") == 3 * 2**20
    assert [path.name for path in life.journal.directory.iterdir()] == ["reserve"]


async def test_damaged_entries_are_reported_counted_and_their_items_dropped(live, body, log):
    first = live()
    await first.put(*[body(number) for number in range(4)])
    first.kill()
    (segment,) = first.journal._entry_store.segments
    begin, end = segment.offsets[:2]
    length = end - begin
    overwrite(segment.path, begin + records.HEADER_BYTES)
    overwrite(segment.path, segment.offsets[2] + records.HEADER_BYTES)
    log.clear()
    second = live()
    damaged = {"event": "journal damaged; part skipped", "log_level": "error", "file": str(segment.path)}
    assert log == [
        {**damaged, "offset": begin, "bytes": length},
        {**damaged, "offset": segment.offsets[2], "bytes": length},
        {"event": "items lost to damage in the journal", "log_level": "error", "items": 4},
        {
            "event": "journal read",
            "log_level": "info",
            "entries": 2,
            "bytes": second.journal.stored,
            "torn_bytes": 0,
            "settled_again": 0,
        },
    ]
    assert second.registry.value("otelwp_journal_damaged_bytes") == 2 * length
    assert (await next_snapshot(second, body)).adjusted is True


async def test_a_missing_end_is_reported_once_and_counted(live, body, log):
    first = live()
    await first.put(*[body(number) for number in range(2)])
    size = first.journal.stored
    await first.put(*[body(number) for number in range(2, 5)])
    first.kill()
    (segment,) = first.journal._entry_store.segments
    os.truncate(segment.path, size)
    log.clear()
    second = live()
    assert log[-2] == {
        "event": "journal has lost its end; acknowledged requests are missing",
        "log_level": "error",
        "entries": 3,
        "directory": str(second.journal.directory),
        "advice": "restore the directory from where it was moved to, or check the disk",
    }
    assert second.registry.value("otelwp_journal_lost_entries") == 3
    assert read_mark(second.journal.directory) == (Mark(segment.marker, 1, 3, 2), False)
    second.kill()
    log.clear()
    third = live()
    assert [line["event"] for line in log] == ["journal read"]
    assert third.registry.value("otelwp_journal_lost_entries") == 0


async def test_the_number_of_a_damaged_last_entry_is_not_used_again(live, body, log):
    first = live()
    *_, last = await first.put(*[body(number) for number in range(3)])
    last.settle()
    await first.flush()
    first.kill()
    (segment,) = first.journal._entry_store.segments
    overwrite(segment.path, segment.offsets[2] + records.HEADER_BYTES)
    log.clear()
    second = live()
    assert [line["event"] for line in log] == ["journal damaged; part skipped", "journal read"], "it was settled"
    (request,) = await second.put(body(9))
    assert request.entry.seq == 4
    second.kill()
    assert live().bodies() == [body(0), body(1), body(9)], "the release of the damaged entry is of no other one"


async def test_a_damaged_last_entry_is_lost_but_the_end_is_not_missing(live, body, log):
    first = live()
    await first.put(body(0), body(1))
    first.kill()
    (segment,) = first.journal._entry_store.segments
    overwrite(segment.path, segment.offsets[1] + records.HEADER_BYTES)
    log.clear()
    second = live()
    assert [line["event"] for line in log] == [
        "journal damaged; part skipped", "items lost to damage in the journal", "journal read",
    ]  # fmt: skip
    assert second.registry.value("otelwp_journal_lost_entries") == 0
    assert second.sums() == (4, [0, 0, 0, 2], 2)


async def test_a_damaged_mark_is_reported(live, body, log):
    first = live()
    await first.put(body(0))
    first.kill()
    overwrite(first.journal.directory / "mark", 10)
    log.clear()
    live()
    assert log[0] == {
        "event": "journal mark damaged; whether the end of the journal is missing is unknown",
        "log_level": "warning",
    }
    assert [line["event"] for line in log[1:]] == ["journal read"]


async def test_a_journal_without_damage_continues_with_its_sums(live, body):
    first = live()
    (one,) = await first.put(body(0), tenant="shop")
    one.settle()
    await first.flush()
    first.kill()
    snapshot = await next_snapshot(live(), body)
    assert snapshot.adjusted is False
    assert snapshot.accounts == [("traces", "otlp", "shop", 2, [2, 0, 0, 0], {})]


async def test_damage_that_costs_nothing_may_change_sums_too(live, body):
    first = live()
    await first.put(body(0))
    first.kill()
    (segment,) = first.journal._entry_store.segments
    again = Segment.open(segment.path, write=False, keys=KEYS)
    context = next(each for each in again.scan() if each.kind is RecordKind.CONTEXT)
    again.close()
    overwrite(segment.path, context.offset + records.HEADER_BYTES)  # the record is there twice
    second = live()
    assert second.bodies() == [body(0)]
    assert (await next_snapshot(second, body)).adjusted is True


def write_by_hand(directory, settled, released):
    """Write a segment with one entry of two items, whose ledger has this sum of delivered items."""
    directory.mkdir()
    segment = Segment.create(directory, 1, 1)
    context = RequestContext(Origin("otlp", "http"), ("traces",))
    row = ("traces", "otlp", "", 2, [settled, 0, 0, 0], {})
    commit = Commit(range(1, 2), [row], released)
    segment.write(
        [
            *records.other(segment.marker, RecordKind.SNAPSHOT, JournalSnapshot(1, [], 0.0).encode()),
            *records.other(segment.marker, RecordKind.CONTEXT, context.encode()),
            *records.entry(segment.marker, 1, Signal.TRACES, 0, 2, b"body"),
            *records.other(segment.marker, RecordKind.COMMIT, commit.encode()),
        ],
        sync=False,
    )
    segment.close()


@pytest.mark.parametrize(
    ("settled", "released", "events", "sums"),
    [
        (2, [], [("journal read", 2)], (4, [2, 0, 0, 0], 2)),
        (0, [1], [("items lost to damage in the journal", None), ("journal read", 0)], (2, [0, 0, 0, 2], 0)),
    ],
    ids=["settled but not released", "released but not settled"],
)
async def test_sums_that_do_not_fit_the_entries_are_corrected(  # noqa: PLR0917 - fixtures and parameters
    live, tmp_path, body, log, settled, released, events, sums
):
    write_by_hand(tmp_path / "journal", settled, released)
    life = live()
    assert [(line["event"], line.get("settled_again")) for line in log] == events
    assert life.sums() == sums
    assert (await next_snapshot(life, body)).adjusted is True
    life.kill()
    assert audit_directory(tmp_path / "journal", KEYS).balances


async def test_a_start_deletes_what_the_run_before_has_settled(live, body, monkeypatch):
    def read_only(_):
        raise OSError(errno.EROFS, "Read-only file system")

    first = live()
    (one,) = await first.put(body(0))
    first.journal._store.current = None
    await first.put(body(1))
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "delete", read_only)
        one.settle()
        await first.flush()
        first.kill()
    second = live()
    oldest, newest = [segment.path for segment in second.journal._entry_store.segments]
    second.journal.start()
    await until(lambda: not oldest.exists())
    assert newest.exists()


async def test_the_sums_of_exporters_are_written_at_the_close_however_recent_the_last_ones_are(live, body):
    life, delivered = live(), [3]
    life.journal.remember_exporters(lambda: [("jaeger", 9, delivered[0], {}, 9 - delivered[0])])
    await life.put(body(0))
    delivered[0] = 8
    await life.journal.close()
    (line,) = [line for line in audit_directory(life.journal.directory, KEYS).lines if line.kind == "exporter"]
    assert (line.accepted, line.delivered, line.in_flight) == (9, 8, 1)


async def test_a_close_without_changes_begins_no_segment(live, body):
    first = live()
    await first.put(body(0))
    await first.journal.close()
    second = live()
    await second.journal.close()
    assert len(list(second.journal.directory.glob("*.journal"))) == 1
    assert open_files(second.journal.directory) == []
    await second.journal.close()


async def test_a_close_writes_what_was_settled_before_any_request_came(live, body):
    first = live()
    await first.put(body(0))
    first.kill()
    second = live()
    ((entry, _, _),) = second.replay()
    second.journal.closed(entry)
    await second.journal.close()
    assert live().bodies() == []


async def test_a_journal_that_was_never_opened_can_be_closed(live):
    life = live()
    await life.journal.close()
    await life.journal.close()
    assert life.journal.stored == 0


async def test_a_missing_reserve_is_reported(live, log, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    life = live()
    assert [(line["event"], line["file"]) for line in log] == [
        ("journal reserve cannot be allocated; the disk is nearly full", str(life.journal.directory / "reserve"))
    ]


@pytest.fixture
async def lost(live, body, log):
    """Return a run in which the first of two entries, for the pipelines `a` and `b`, was damaged after the opening."""
    first = live()
    one, _ = await first.put(body(0), body(1), pipelines=("a", "b"), tenant="shop")
    one.claims[0].receipt.settle(Outcome.DELIVERED, 2)
    await first.flush()
    first.kill()
    second = live()
    segment = second.journal._entry_store.segments[0]
    os.pwrite(segment.fd, b"\xff" * 8, segment.offsets[0] + records.HEADER_BYTES)
    log.clear()
    return second


async def test_an_entry_that_is_found_damaged_is_dropped_for_the_pipelines_that_have_not_settled_it(lost, body, log):
    closed = []
    lost.journal.on_closed = lambda: closed.append(1)
    assert lost.bodies() == [body(1)]
    assert log == [
        {
            "event": "journal damaged; an entry is lost",
            "log_level": "error",
            "file": str(lost.journal._entry_store.segments[0].path),
            "items": 2,
        }
    ]
    assert lost.sums("a", "shop") == (4, [2, 0, 0, 0], 2)
    assert lost.sums("b", "shop") == (4, [0, 0, 0, 2], 2)
    assert lost.ledgers.get("b", "otlp", "shop").dropped_reasons == {"journal_damaged": 2}
    assert (closed, lost.journal.entries) == ([1], 1)
    assert lost.registry.value("otelwp_journal_replayed_entries") == 1
    await until(lambda: lost.registry.value("otelwp_journal_commits") == 1)
    lost.kill()
    assert audit_directory(lost.journal.directory, KEYS).lines[1].dropped == 2


async def test_an_entry_without_context_is_dropped(live, body, log):
    first = live()
    await first.put(body(0), body(1))
    first.kill()
    second = live()
    segment = second.journal._entry_store.segments[0]
    segment.context_numbers[0] = 9
    segment.waiting_for.update({(9, 0): 1})
    segment.waiting_for[0, 0] -= 1
    log.clear()
    assert second.bodies() == [body(1)]
    assert [(line["event"], line["items"]) for line in log] == [("journal damaged; an entry is lost", 2)]
    assert second.journal.entries == 1
