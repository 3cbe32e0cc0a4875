"""What the loop of commits does beyond writing: see test_journal.py for that."""

import asyncio
import errno
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from otelwp_agent.errors import Overloaded
from otelwp_agent.journal import commits
from otelwp_agent.journal.commits import EARLY_BYTES, FLUSH_INTERVAL, GROUP_INTERVAL, MAX_GROUP
from otelwp_agent.journal.records import HEADER_BYTES, JournalSnapshot, RecordKind
from otelwp_agent.journal.segment import DisplacedError, Segment
from otelwp_agent.journal.segments import SegmentStore
from otelwp_agent.model.receipt import Outcome
from tests.kit.graphs import until


@pytest.fixture
def log():
    with capture_logs() as lines:
        yield lines


async def test_a_check_that_is_due_during_a_write_follows_it(live, body, monkeypatch):
    life = live()
    checked = []
    monkeypatch.setattr(
        SegmentStore, "find_displaced", lambda _: checked.append(life.journal._commits.builder) or False
    )
    await life.put(body(9))
    assert checked == []
    submit = life.journal._commits._writer.submit

    def check_meanwhile(work, done):
        life.journal._commits._on_check()
        submit(work, done)

    monkeypatch.setattr(life.journal._commits._writer, "submit", check_meanwhile)
    await life.put(body(0))
    assert checked == [None]
    monkeypatch.setattr(life.journal._commits._writer, "submit", submit)
    await life.put(body(1))
    assert checked == [None], "no other check is due"


async def test_checks_end_with_the_journal(live, body, monkeypatch):
    monkeypatch.setattr(commits, "CHECK_INTERVAL", 0.01)
    life = live()
    checked = []
    monkeypatch.setattr(SegmentStore, "find_displaced", lambda _: checked.append(1) or False)
    life.journal.start()
    await until(lambda: len(checked) > 1)
    await life.journal.close()
    assert life.journal._commits._check is None
    with pytest.raises(Overloaded, match="shutting down"):
        life.journal.admit()


def sized(*sizes):
    origin = SimpleNamespace(tenant="")
    return [SimpleNamespace(batch=SimpleNamespace(body=bytes(size), origin=origin)) for size in sizes]


def taken(commits, *sizes):
    """Return how many requests of these sizes the next commits take, one after another."""
    commits._requests = sized(*sizes)
    commits._admission.unwritten = sum(sizes)
    counts = []
    while commits._requests:
        requests = commits._take()
        commits._admission.unwritten -= sum(len(request.batch.body) for request in requests)
        counts.append(len(requests))
    return counts


MIB = 2**20


@pytest.mark.parametrize(
    ("sync", "sizes", "counts"),
    [
        ("always", (10, 10, 10), [1, 1, 1]),
        ("group", (10, 10, 10), [3]),
        ("group", (MAX_GROUP - 1,), [1]),
        ("group", (2 * MIB, 2 * MIB, 2 * MIB), [2, 1]),
        ("group", (2 * MIB, 2 * MIB - 1, 2 * MIB, 10), [3, 1]),
        ("group", (10 * MIB, 10, 10), [1, 2]),
        ("none", (10, 10), [2]),
    ],
)
def test_a_commit_takes_what_fits_into_a_group(live, sync, sizes, counts):
    assert taken(live(sync=sync).journal._commits, *sizes) == counts


def test_a_commit_takes_4096_requests_at_most(live):
    commits = live().journal._commits
    assert taken(commits, *[1] * 5000) == [4096, 904]
    assert taken(commits, *[1] * 5000, 8 * MIB) == [4096, 905]


class Timers:
    """What the loop was asked to call, and when."""

    def __init__(self, monkeypatch, now=1000.0):
        loop = asyncio.get_running_loop()
        self.now = now
        self.calls = []
        monkeypatch.setattr(loop, "time", lambda: self.now)
        monkeypatch.setattr(loop, "call_later", lambda wait, call: self.calls.append((round(wait, 6), call.__name__)))
        monkeypatch.setattr(loop, "call_soon", lambda call, *_, **__: self.calls.append((0, call.__name__)))


@pytest.mark.parametrize(
    ("sync", "before", "wait"),
    [
        ("group", (1.0, 10), 0),
        ("group", (0.002, 10), 0.003),
        ("group", (GROUP_INTERVAL, 10), 0),
        ("group", (0.002, EARLY_BYTES - 1), 0.003),
        ("group", (0.002, EARLY_BYTES), 0),
        ("always", (0.002, 10), 0),
        ("none", (0.002, 10), 0),
    ],
)
async def test_a_commit_waits_for_others_if_the_last_one_was_a_moment_ago(live, monkeypatch, sync, before, wait):
    since, unwritten = before
    commits = live(sync=sync).journal._commits
    with monkeypatch.context() as patch:
        timers = Timers(patch)
        commits._last_write = timers.now - since
        commits._admission.unwritten = unwritten
        commits._schedule()
        assert timers.calls == [(wait, "commit")]
        assert commits._scheduled
    commits._scheduled = False
    commits._admission.unwritten = 0


async def test_one_commit_is_scheduled_for_all_that_comes_meanwhile(live, monkeypatch):
    commits = live().journal._commits
    with monkeypatch.context() as patch:
        timers = Timers(patch)
        for request in sized(10, 20):
            commits.add(request)
        assert (timers.calls, commits._admission.unwritten) == ([(0, "commit")], 30)
        commits.soon()
        assert timers.calls == [(0, "commit")], "a commit is coming anyway"
    commits._requests, commits._admission.unwritten, commits._scheduled = [], 0, False


async def test_a_release_is_written_a_tenth_of_a_second_later_unless_a_commit_comes_before(live, monkeypatch):
    commits = live().journal._commits
    with monkeypatch.context() as patch:
        timers = Timers(patch)
        patch.setattr(
            asyncio.get_running_loop(), "call_later", lambda *call: timers.calls.append(call) or SimpleNamespace()
        )
        commits.soon()
        commits.soon()
        assert [wait for wait, _ in timers.calls] == [FLUSH_INTERVAL]
        commits._flush, commits.builder = None, object()
        commits.soon()
        commits.builder, commits._admission.closed = None, True
        commits.soon()
        assert len(timers.calls) == 1
    commits._admission.closed = False


async def test_a_release_is_on_disk_soon_without_any_request(live, body):
    life = live()
    (one,) = await life.put(body(0))
    one.settle()
    assert life.journal._commits._flush is not None
    await until(lambda: not life.journal._changes)
    assert life.journal._commits._flush is None
    assert life.registry.value("otelwp_journal_commits") == 2


async def test_what_waits_to_be_written_is_counted_until_it_is_on_disk(live, body):
    life = live()
    request = asyncio.ensure_future(life.put(body(0), body(1)))
    await asyncio.sleep(0)
    assert life.journal._admission.unwritten == 2 * len(body(0))
    await request
    assert life.journal._admission.unwritten == 0
    assert "otelwp_journal_commit_duration_seconds_count 1\n" in life.registry.expose()


async def test_what_waits_to_be_written_is_charged_to_its_tenant_until_it_is_on_disk(live, body):
    life = live()
    use = life.journal._admission._unwritten_use
    request = asyncio.ensure_future(life.put(body(0), body(1), tenant="shop"))
    await asyncio.sleep(0)
    assert use.of("shop") == 2 * len(body(0))
    await request
    assert use.of("shop") == 0


async def test_a_segment_that_disappears_is_replaced_once_and_the_second_time_senders_are_refused(
    live, body, monkeypatch
):
    life = live()
    tries = []

    def displaced(segment, *_, **__):
        tries.append(segment.number)
        raise DisplacedError("the segment is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Segment, "write", displaced)
        (refused,) = await life.put(body(0))
    assert len(tries) == 2
    assert "cannot be written: the segment is gone" in str(refused.error)
    assert (life.sums()[0], life.journal._admission.unwritten) == (0, 0)
    assert life.registry.value("otelwp_journal_write_failures") == 1
    assert life.registry.value("otelwp_journal_refused_entries", reason="journal_unwritable") == 1
    life.journal._failure.refuse_until = 0.0
    (written,) = await life.put(body(1))
    assert (written.error, life.sums()[0]) == (None, 2)


async def test_a_mark_that_cannot_be_written_is_logged_once_until_it_can(live, body, log):
    life = live()
    mark = life.journal._store.mark
    write = mark.write
    for failure in ("No space left on device", "No space left on device", "", "Input/output error"):
        mark.write = lambda each, failure=failure: write(each) or setattr(mark, "failure", failure)
        await life.put(body(0))
    assert [(line["event"], line["error"]) for line in log if "mark" in line["event"]] == [
        ("journal mark not written; a lost tail would not be noticed", "No space left on device"),
        ("journal mark not written; a lost tail would not be noticed", "Input/output error"),
    ]


async def test_a_bug_in_a_commit_is_logged_and_senders_are_refused_with_it(live, body, log, monkeypatch):
    life = live()
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "write", lambda *_, **__: 1 / 0)
        (one,) = await life.put(body(0))
    assert "ZeroDivisionError" in str(one.error)
    (line,) = [line for line in log if line["event"] == "the journal's writing broke"]
    assert (line["log_level"], type(line["exc_info"])) == ("error", ZeroDivisionError)


async def test_entries_of_a_segment_that_disappeared_are_copied_while_they_are_settled(live, body, monkeypatch):
    """One is released and one is done by another branch between the preparation of the commit and its end."""
    life = live()
    requests = await life.put(*[body(number) for number in range(5)])
    forks = requests[1].claims[0].receipt.fork(["x", "y", "z"])
    forks[0].settle(Outcome.DELIVERED, 2)
    lost = life.journal._entry_store.segments[-1]
    lost.path.unlink()
    commits, submit = life.journal._commits, life.journal._commits._writer.submit

    def settle_meanwhile(work, done):
        if commits.builder.moved:
            requests[3].settle()
            forks[1].settle(Outcome.DELIVERED, 2)
            forks[2].park(2)
        submit(work, done)

    monkeypatch.setattr(commits._writer, "submit", settle_meanwhile)
    commits._on_check()
    await until(lambda: not life.journal._store.must_copy)
    monkeypatch.undo()
    requests[0].settle()
    (later,) = await life.put(body(5))
    assert [life.journal.entries, life.journal.waiting] == [4, 1]
    segment = later.entry.segment
    assert requests[2].entry.segment is segment
    assert [segment.entry(each.entry.index).body() for each in (requests[2], requests[4], later)] == [
        body(2), body(4), body(5)
    ]  # fmt: skip
    assert segment.live == 4
    overhead = segment.cipher.overhead if segment.cipher is not None else 0
    assert segment.live_bytes == sum(
        record.end - record.offset for record in (segment.entry(requests[at].entry.index) for at in (1, 2, 4))
    ) + HEADER_BYTES + overhead + len(body(5))
    later.settle()
    requests[4].settle()
    await life.flush()
    assert segment.live == 2
    life.kill()
    second = live()
    assert {record.body(): entry.done for entry, record, _ in second.replay()} == {
        body(1): {(0, "x"), (0, "y")},
        body(2): frozenset(),
    }
    assert second.sums()[0] == 12


async def test_what_is_displaced_is_copied_by_the_next_check_even_if_that_finds_nothing_new(live, monkeypatch):
    commits = live().journal._commits
    called = []
    monkeypatch.setattr(commits, "commit", lambda: called.append(1))
    for displaced, must_copy, count in ((False, False, 0), (True, False, 1), (False, True, 2), (True, True, 3)):
        monkeypatch.setattr(SegmentStore, "find_displaced", lambda _, displaced=displaced: displaced)
        monkeypatch.setattr(SegmentStore, "must_copy", must_copy)
        commits._on_check()
        assert len(called) == count
    commits._check.cancel()


async def test_the_next_segment_begins_with_the_number_after_the_last_entry(live, body):
    life = live()
    await life.put(body(0), body(1))
    life.journal._store.current = None
    (later,) = await life.put(body(2))
    assert (later.entry.segment.first, later.entry.seq, later.entry.index) == (3, 3, 0)
    (after,) = await life.put(body(3))
    record = after.entry.segment.entry(1)
    assert record.body() == body(3)
    assert (after.entry.seq, after.entry.index, after.entry.size) == (4, 1, record.size)


@pytest.mark.parametrize("why", ["a commit is being written", "the journal is closed"])
async def test_nothing_is_written_beside_another_commit_or_after_the_end(live, why):
    commits = live().journal._commits
    commits._requests = sized(10)
    if why == "the journal is closed":
        commits._admission.closed = True
    else:
        commits.builder = object()
    before = commits.builder
    commits.commit()
    assert (len(commits._requests), commits.builder) == (1, before)
    assert commits._scheduled is False
    commits.builder, commits._requests = None, []


async def test_senders_are_refused_when_no_segment_can_be_created(live, body, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    life = live()
    with monkeypatch.context() as patch:
        patch.setattr(SegmentStore, "newest", full)
        requests = await life.put(body(0), body(1))
    assert ["No space left on device" in str(request.error) for request in requests] == [True, True]
    assert (life.journal._admission.unwritten, life.sums()[0]) == (0, 0)


async def test_the_accounts_of_requests_add_up(live, body):
    life = live()
    for number in range(3):
        await life.put(body(number))
    assert life.sums() == (6, [0, 0, 0, 0], 6)


async def test_a_segment_begins_with_the_accounts_on_disk_and_the_time(live, body, monkeypatch):
    life = live()
    monkeypatch.setattr("otelwp_agent.journal.commits.time.time", lambda: 1234.5)
    for adjusted in (True, False):
        life.journal._store.adjusted, life.journal._store.current = adjusted, None
        (one,) = await life.put(body(0))
        record = next(iter(one.entry.segment.scan()))
        assert record.kind is RecordKind.SNAPSHOT
        snapshot = JournalSnapshot.decode(record.payload)
        assert (snapshot.first, snapshot.time, snapshot.adjusted) == (one.entry.seq, 1234.5, adjusted)
        assert [row[3] for row in snapshot.accounts] == ([] if adjusted else [2])
        (two,) = await life.put(body(1))
        life.journal._changes.written.clear()
        assert [each.kind for each in two.entry.segment.scan()].count(RecordKind.SNAPSHOT) == 1
        life.journal._changes.written[two.ledgers[0]] = ("traces", "otlp", "", 2, [0, 0, 0, 0], {})


async def test_without_sync_no_thread_writes(live, body, monkeypatch):
    life = live(sync="none")
    monkeypatch.setattr(life.journal._commits._writer, "submit", lambda *_: pytest.fail("a thread was asked"))
    (one,) = await life.put(body(0))
    assert one.error is None
