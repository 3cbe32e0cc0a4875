import errno
import os
from types import SimpleNamespace

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.journal import entry_store as shelves
from otelwp_agent.journal import records
from otelwp_agent.journal.commits import CommitLoop
from otelwp_agent.journal.entry_store import READ_INTERVAL, EntryStore
from otelwp_agent.journal.records import HEADER_BYTES, RequestContext
from otelwp_agent.journal.recovery import Recovered
from otelwp_agent.journal.segment import FIRST_PARTLY_DONE, RELEASED, RUNNING, WAITING, Segment
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal


def large(number):
    return b"%04d" % number + bytes(50_000)


async def fill_until(life, done):
    """Write and settle until `done()`."""
    for number in range(100):
        if done():
            return
        (request,) = await life.put(large(number))
        request.settle()
    pytest.fail("it never happened")


def make(directory, number, first, *names):
    segment = Segment.create(directory, number, first)
    segment.contexts = {at: RequestContext(Origin("otlp", "http"), (name,)) for at, name in enumerate(names)}
    return segment


@pytest.fixture
def entry_store():
    return EntryStore(None, structlog.get_logger())


def settle(entry_store, entry, *, parked=False, done=()):
    entry.parked, entry.done = parked, frozenset(done)
    return entry_store.end(entry)


def test_an_entry_runs_waits_for_some_branches_runs_again_and_is_released(entry_store, tmp_path):
    segment = make(tmp_path, 1, 1, "traces")
    entry_store.segments.append(segment)
    entry_store.add(segment, [(0, 0, 5)])
    entry = entry_store.begin(segment, 0, 5, 40)
    assert (entry_store.entries, entry_store.waiting, segment.states[0]) == (1, 0, RUNNING)
    assert not settle(entry_store, entry, parked=True, done={(0, "jaeger")})
    assert (entry_store.entries, entry_store.waiting, segment.states[0]) == (1, 1, FIRST_PARTLY_DONE)
    (replay,) = entry_store.replays(lambda _context, done: done == {(0, "jaeger")})
    assert (replay.entry.done, replay.entry.items, entry_store.waiting) == ({(0, "jaeger")}, 5, 0)
    assert settle(entry_store, replay.entry)
    assert (entry_store.entries, segment.live, segment.states[0]) == (0, 0, RELEASED)
    with pytest.raises(KeyError):
        entry_store.end(replay.entry)
    segment.close()


def test_more_kinds_of_progress_than_a_byte_can_tell_are_done_again(entry_store, tmp_path):
    segment = make(tmp_path, 1, 1, "traces")
    entry_store.segments.append(segment)
    entry_store.add(segment, [(0, 0, 1)] * 300)
    for index in range(300):
        settle(entry_store, entry_store.begin(segment, index, 1, 40), parked=True, done={(0, str(index))})
    done = [entry_store.done(segment, index) for index in range(300)]
    assert done[252] == {(0, "252")}
    assert (segment.states[252], segment.states[253], done[253]) == (255, WAITING, frozenset())
    segment.close()


def test_others_have_their_turn_while_entries_without_room_are_passed(entry_store, tmp_path, monkeypatch):
    monkeypatch.setattr(shelves, "GLANCES", 10)
    segment = make(tmp_path, 1, 1, "full", "free")
    entry_store.segments.append(segment)
    entry_store.add(segment, [(0, 0, 1)] * 35 + [(0, 1, 1)])
    for index in range(36):
        settle(entry_store, entry_store.begin(segment, index, 1, 40), parked=True)
    found = list(entry_store.replays(lambda context, _: context.pipelines == ("free",)))
    assert [replay and replay.entry.index for replay in found] == [None, None, None, 35]
    segment.close()


def test_segments_may_come_and_go_between_two_replays(entry_store, tmp_path):
    segments = [make(tmp_path, number, 1 + 2 * number, "traces") for number in range(3)]
    for segment in segments:
        entry_store.segments.append(segment)
        entry_store.add(segment, [(0, 0, 1)] * 2)
        for index in range(2):
            settle(entry_store, entry_store.begin(segment, index, 1, 40), parked=True)
    replays = entry_store.replays(lambda _context, _done: True)
    first = next(replays).entry
    for index in range(2):  # all of the second moves to the third, and the second is deleted with the first
        entry_store.add(segments[2], [(0, 0, 1)])
        assert not entry_store.move(segments[1], index, segments[2], 2 + index, 40)
    settle(entry_store, first)
    settle(entry_store, next(replays).entry)
    segments[0].kept = 0
    for pruned in entry_store.prune(None):
        pruned.delete()
    assert entry_store.segments == segments[2:]
    assert [replay.entry.seq for replay in replays] == [5, 6, 7, 8]
    assert list(tmp_path.iterdir()) == [segments[2].path]
    segments[2].close()


def test_what_is_kept_is_not_deleted(entry_store, tmp_path):
    old, new = make(tmp_path, 1, 1, "traces"), make(tmp_path, 2, 2, "traces")
    entry_store.segments += [old, new]
    entry_store.add(old, [(0, 0, 1)])
    entry = entry_store.begin(old, 0, 1, 40)
    assert entry_store.prune(new) == [], "it is not settled"
    settle(entry_store, entry)
    assert entry_store.prune(new) == [], "that it is settled is not on disk"
    old.kept = 0
    assert entry_store.prune(new) == [old]
    assert entry_store.prune(None) == [], "the last one has the accounts"
    assert entry_store.segments == [new]
    old.close()
    new.close()


async def test_an_entry_that_is_damaged_and_partly_done_does_not_take_another_with_it(live, body):
    first = live()
    one, _ = await first.put(body(0), body(1))
    left, _ = one.claims[0].receipt.fork(["jaeger", "zipkin"])
    left.settle(Outcome.DELIVERED, 2)
    await first.flush()
    first.kill()
    segment = first.journal._entry_store.segments[-1]
    with segment.path.open("r+b") as file:
        file.seek(segment.offsets[0] + 40)
        file.write(b"\xff")
    second = live()
    assert second.sums() == (4, [0, 0, 0, 2], 2)
    await second.put(body(2))
    assert second.bodies() == [body(1)]
    await second.flush()
    await second.flush()
    second.kill()
    assert live().bodies() == [body(1), body(2)]


async def test_what_is_parked_while_it_moves_is_remembered_where_it_has_come_to(live, monkeypatch):
    life = live(max_size="4MiB")
    (old,) = await life.put(large(0))
    left, right = old.claims[0].receipt.fork(["jaeger", "zipkin"])
    left.settle(Outcome.DELIVERED, 2)
    real, parked = CommitLoop._written, []

    def meanwhile(self, builder):
        if builder.moved and not parked:
            parked.append(right.park(2))
        real(self, builder)

    monkeypatch.setattr(CommitLoop, "_written", meanwhile)
    await fill_until(life, lambda: parked)
    await life.flush()
    life.kill()
    (replay,) = live(max_size="4MiB").replay()
    assert replay[0].done == {(0, "jaeger")}


async def test_what_moves_while_a_branch_runs_takes_along_which_others_are_done(live):
    life = live(max_size="4MiB")
    (old,) = await life.put(large(0))
    left, _ = old.claims[0].receipt.fork(["jaeger", "zipkin"])
    left.settle(Outcome.DELIVERED, 2)
    await life.flush()
    await fill_until(life, lambda: old.entry.segment.number > 1)
    await life.flush()
    life.kill()
    (replay,) = live(max_size="4MiB").replay()
    assert replay[0].done == {(0, "jaeger")}


async def test_an_old_segment_that_cannot_be_read_stops_no_writing_and_no_feeding(live, monkeypatch):
    life = live(max_size="4MiB")
    await life.put(large(0))
    life.kill()
    life = live(max_size="4MiB")

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(os, "pread", broken)
        await fill_until(life, lambda: life.journal.stored > 3 * 2**20)
        assert life.journal.failure == ""
        assert life.replay() == []
    assert (logs[0]["event"], logs[0]["log_level"]) == ("journal cannot be read; entries wait", "error")
    assert "cannot be read" in life.journal.health().message
    assert life.registry.value("otelwp_journal_unreadable_entries") == 1
    assert life.sums()[2] == 2, "it is not lost: it may be readable later"
    assert life.replay() == [], "not tried again at once"
    life.journal._entry_store.unreadable = dict.fromkeys(life.journal._entry_store.unreadable, 0.0)
    assert life.bodies() == [large(0)]
    assert life.journal.health().message == ""


@pytest.fixture
def segment(tmp_path):
    """Return a segment whose first entry has number 10, with the pipelines `a` and `b` as contexts 0 and 1."""
    segment = make(tmp_path, 4, 10, "a", "b")
    yield segment
    segment.close()


@pytest.fixture
def other(tmp_path):
    segment = make(tmp_path, 5, 20, "b", "a")
    yield segment
    segment.close()


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
    return (segment.live, segment.live_bytes, segment.kept, segment.waiting)


def always(_context, _done):
    return True


def test_new_entries_are_counted_in_their_segment_and_in_the_store(entry_store, segment):
    one, two = write(entry_store, segment, (0, 5, b"one"), (1, 7, b"second"))
    assert entry_store.add(segment, []) == 2
    assert (list(segment.context_numbers), list(segment.items)) == ([0, 1], [5, 7])
    assert list(segment.offsets) == [0, HEADER_BYTES + 3]
    assert counts(segment) == (2, 2 * HEADER_BYTES + 9, 2, 0)
    assert (entry_store.entries, entry_store.stored, entry_store.waiting) == (2, segment.size, 0)
    assert (one.seq, one.items, one.size, two.seq, two.items, two.size) == (
        10, 5, HEADER_BYTES + 3, 11, 7, HEADER_BYTES + 6,
    )  # fmt: skip


def test_a_released_entry_is_no_longer_counted_but_kept_until_its_release_is_on_disk(entry_store, segment):
    one, _, three = write(entry_store, segment, (0, 5, b"one"), (1, 7, b"second"), (0, 1, b""))
    assert settle(entry_store, one) is True
    assert counts(segment) == (2, 2 * HEADER_BYTES + 6, 3, 0)
    assert (entry_store.entries, entry_store.released(segment)) == (2, [10])
    assert settle(entry_store, three) is True
    assert (entry_store.entries, entry_store.released(segment)) == (1, [10, 12])


def test_waiting_entries_are_counted_by_context_and_settled_branches(entry_store, segment):
    entries = write(entry_store, segment, *[(0, 1, b"")] * 4, (1, 1, b""))
    for entry in entries[:2]:
        assert settle(entry_store, entry, parked=True, done={(0, "jaeger")}) is False
    settle(entry_store, entries[2], parked=True)
    settle(entry_store, entries[4], parked=True, done={(0, "zipkin")})
    assert segment.waiting_for == {
        (0, FIRST_PARTLY_DONE): 2, (0, WAITING): 1, (1, FIRST_PARTLY_DONE + 1): 1,
    }  # fmt: skip
    assert entry_store.partly_done(segment) == [(10, 0, "jaeger"), (11, 0, "jaeger"), (14, 0, "zipkin")]
    list(entry_store.replays(lambda _, done: done == {(0, "jaeger")}))
    assert segment.waiting_for == {(0, WAITING): 1, (1, FIRST_PARTLY_DONE + 1): 1}, "no count of 0 remains"
    assert (entry_store.entries, entry_store.waiting) == (5, 2)


def test_a_running_entry_moves_with_its_counts(entry_store, segment, other):
    one, two, _ = write(entry_store, segment, (0, 5, b"one"), (0, 7, b"second"), (0, 1, b""))
    write(entry_store, other, (0, 1, b"before"))
    place = entry_store.add(other, [(other.size, 1, 5)])
    assert place == 1
    assert entry_store.move(segment, 0, other, place, 99) is False
    assert (one.segment, one.index, one.size, one.seq) == (other, 1, 99, 21)
    assert bytes(segment.states) == bytes([RELEASED, RUNNING, RUNNING])
    assert bytes(other.states) == bytes([RUNNING, RUNNING])
    assert (segment.live, segment.kept) == (2, 2)
    assert counts(other) == (2, HEADER_BYTES + 6 + 99, 2, 0)
    assert entry_store.entries == 4
    assert settle(entry_store, one)
    assert (counts(other), entry_store.entries) == ((1, HEADER_BYTES + 6, 2, 0), 3)
    two.done = frozenset({(0, "jaeger")})
    assert entry_store.done(segment, 1) == {(0, "jaeger")}


def test_a_waiting_entry_moves_with_its_branches(entry_store, segment, other):
    one, two = write(entry_store, segment, (0, 5, b"one"), (0, 7, b"second"))
    settle(entry_store, one, parked=True, done={(0, "jaeger")})
    settle(entry_store, two, parked=True, done={(0, "jaeger")})
    write(entry_store, other)
    entry_store.add(other, [(0, 1, 5)])
    assert entry_store.move(segment, 0, other, 0, 50) is False
    assert segment.waiting_for == {(0, FIRST_PARTLY_DONE): 1}
    assert other.waiting_for == {(1, FIRST_PARTLY_DONE): 1}
    assert entry_store.done(other, 0) == {(0, "jaeger")}
    assert (other.live, other.live_bytes) == (1, 50)


def test_an_entry_that_was_released_meanwhile_does_not_move(entry_store, segment, other):
    (one,) = write(entry_store, segment, (0, 5, b"one"))
    settle(entry_store, one)
    write(entry_store, other)
    entry_store.add(other, [(0, 1, 5)])
    assert entry_store.move(segment, 0, other, 0, 50) is True
    assert (bytes(other.states), other.live, segment.kept) == (bytes([RELEASED]), 0, 1)


def copied(entry_store, segment, most=10**6):
    return [(index, record.body(), context.pipelines, set(done)) for index, record, context, done in entry_store.living(
        segment, most
    )]  # fmt: skip


def test_entries_that_are_not_released_are_read_for_copying(entry_store, segment):
    released, parked, *_ = write(entry_store, segment, *[(number % 2, 1, b"%d" % number) for number in range(4)])
    settle(entry_store, released)
    settle(entry_store, parked, parked=True, done={(0, "jaeger")})
    assert copied(entry_store, segment) == [
        (1, b"1", ("b",), {(0, "jaeger")}), (2, b"2", ("a",), set()), (3, b"3", ("b",), set()),
    ]  # fmt: skip


@pytest.mark.parametrize(("most", "count"), [(0, 1), (9, 1), (10, 2), (19, 2), (20, 3), (29, 3), (30, 4)])
def test_copying_ends_with_the_entry_that_exceeds_the_limit(entry_store, segment, most, count):
    write(entry_store, segment, *[(0, 1, bytes(10))] * 5)
    assert len(copied(entry_store, segment, most)) == count


def test_entries_that_are_damaged_or_have_no_context_are_not_copied(entry_store, segment):
    write(entry_store, segment, (0, 1, b"damaged"), (7, 1, b"no context"), (0, 1, b"good"))
    os.pwrite(segment.fd, b"\xff", HEADER_BYTES)
    assert [index for index, *_ in copied(entry_store, segment)] == [2]


def unreadable_at(monkeypatch, *offsets):
    """Let reading at these offsets fail."""
    real = os.pread

    def read(fd, size, offset):
        if offset in offsets:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", read)


def test_entries_that_cannot_be_read_are_not_copied_and_logged_once(entry_store, segment, monkeypatch):
    write(entry_store, segment, *[(0, 1, b"x")] * 3)
    unreadable_at(monkeypatch, *segment.offsets[:2])
    with capture_logs() as logs:
        assert [index for index, *_ in copied(entry_store, segment)] == [2]
    assert logs == [
        {
            "event": "journal entry not copied: it cannot be read",
            "log_level": "warning",
            "error": "Input/output error",
        }
    ]


def test_an_entry_is_replayed_with_its_size_items_context_and_branches(entry_store, segment):
    one, two = write(entry_store, segment, (0, 1, b"one"), (1, 7, b"second"))
    settle(entry_store, two, parked=True, done={(0, "jaeger")})
    (replay,) = entry_store.replays(always)
    entry = replay.entry
    assert (entry.segment, entry.index, entry.items, entry.size) == (segment, 1, 7, HEADER_BYTES + 6)
    assert (entry.done, entry.keeper, entry is two) == ({(0, "jaeger")}, None, False)
    assert (replay.record.body(), replay.context.pipelines, segment.states[1]) == (b"second", ("b",), RUNNING)
    assert list(entry_store.replays(always)) == [], "it runs"
    assert settle(entry_store, entry)
    assert counts(segment) == (1, one.size, 2, 0)


def test_a_damaged_entry_is_replayed_without_a_record(entry_store, segment):
    for entry in write(entry_store, segment, (0, 3, b"damaged"), (0, 1, b"good")):
        settle(entry_store, entry, parked=True)
    os.pwrite(segment.fd, b"\xff", HEADER_BYTES)
    damaged, good = entry_store.replays(always)
    assert (damaged.record, damaged.entry.items, damaged.entry.size) == (None, 3, 0)
    assert good.record.body() == b"good"


def test_an_entry_without_context_is_replayed_to_be_dropped_however_full_the_pipelines_are(entry_store, segment):
    for entry in write(entry_store, segment, (0, 1, b"full"), (7, 3, b"no context")):
        settle(entry_store, entry, parked=True)
    (replay,) = entry_store.replays(lambda _context, _done: False)
    assert (replay.context, replay.entry.index) == (None, 1)


def test_a_pipeline_that_has_become_full_gets_no_more_entries(entry_store, segment):
    for entry in write(entry_store, segment, *[(number % 2, 1, b"%d" % number) for number in range(6)]):
        settle(entry_store, entry, parked=True)
    capacity = {("a",): 1, ("b",): 3}
    found = []
    for replay in entry_store.replays(lambda context, _done: capacity[context.pipelines] > 0):
        found.append(replay.record.body())
        capacity[replay.context.pipelines] -= 1
    assert found == [b"0", b"1", b"3", b"5"]
    assert entry_store.waiting == 2


def test_entries_with_other_settled_branches_are_asked_for_separately(entry_store, segment):
    states = [set(), {(0, "jaeger")}, {(0, "zipkin")}]
    for entry, done in zip(write(entry_store, segment, *[(0, 1, b"")] * 3), states, strict=True):
        settle(entry_store, entry, parked=True, done=done)
    asked = []
    list(entry_store.replays(lambda context, done: asked.append((context.pipelines, set(done)))))
    assert sorted(asked, key=str) == sorted(((("a",), done) for done in states), key=str)


class Clock:
    """Replaces the module `time`."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(shelves, "time", SimpleNamespace(monotonic=lambda: self.now))


def test_an_entry_that_cannot_be_read_is_tried_again_a_second_later(segment, monkeypatch):
    clock = Clock(monkeypatch)
    entry_store = EntryStore(None, structlog.get_logger())
    for entry in write(entry_store, segment, *[(0, 1, b"x")] * 3):
        settle(entry_store, entry, parked=True)
    with monkeypatch.context() as patch, capture_logs() as logs:
        unreadable_at(patch, *segment.offsets[:2])
        assert [replay.entry.index for replay in entry_store.replays(always)] == [2]
    assert logs == [
        {
            "event": "journal cannot be read; entries wait",
            "log_level": "error",
            "file": str(segment.path),
            "failures": 1,
            "error": "Input/output error",
            "advice": "check the disk; reading is tried again",
        }
    ]
    assert entry_store.unreadable == {(4, 0): 1000.0 + READ_INTERVAL, (4, 1): 1000.0 + READ_INTERVAL}
    assert (entry_store.waiting, bytes(segment.states)) == (2, bytes([WAITING, WAITING, RUNNING]))
    clock.now += READ_INTERVAL - 0.01
    assert list(entry_store.replays(always)) == []
    clock.now = 1000.0 + READ_INTERVAL
    assert [replay.entry.index for replay in entry_store.replays(always)] == [0, 1]
    assert entry_store.unreadable == {}


def test_unreadable_entries_do_not_hold_up_others(entry_store, segment):
    for entry in write(entry_store, segment, *[(0, 1, b"x")] * 2):
        settle(entry_store, entry, parked=True)
    entry_store.unreadable[segment.number, 0] = float("inf")
    assert [replay.entry.index for replay in entry_store.replays(always)] == [1]


def test_unsettled_items_are_added_up_by_pipeline_receiver_and_tenant(entry_store, segment, other):
    segment.contexts[2] = RequestContext(Origin("zipkin", "http", "shop"), ("a", "b"))
    released, parked, *_ = write(
        entry_store, segment, (0, 64, b""), (2, 1, b""), (7, 32, b""), (2, 2, b""), (0, 4, b"")
    )
    write(entry_store, other, (1, 8, b""))
    settle(entry_store, released)
    settle(entry_store, parked, parked=True, done={(0, ""), (1, "jaeger")})
    assert entry_store.live() == {
        ("b", "zipkin", "shop"): 3,
        ("a", "zipkin", "shop"): 2,
        ("a", "otlp", ""): 12,
    }


def test_segments_are_pruned_from_the_oldest_up_to_one_that_is_needed(entry_store, tmp_path):
    segments = [make(tmp_path, number, number, "a") for number in range(5)]
    entry_store.segments += segments
    segments[2].kept = 1
    assert entry_store.prune(segments[4]) == segments[:2]
    assert entry_store.segments == segments[2:]
    segments[2].kept = 0
    assert entry_store.prune(segments[3]) == [segments[2]], "the current one stays"
    for segment in segments:
        segment.close()


def test_waiting_entries_are_restored_with_their_branches(entry_store, segment, other):
    for each, first in ((segment, 10), (other, 20)):
        each.states.extend(bytes([WAITING, RELEASED, WAITING]))
        each.context_numbers.extend([0, 1, 1])
        assert each.first == first
    zipkin, jaeger = {(0, "zipkin")}, {(1, "jaeger")}
    branches = {10: jaeger, 11: zipkin, 12: zipkin, 13: jaeger, 19: jaeger, 20: zipkin, 99: jaeger}
    segment.live = other.live = 2
    entry_store.restore(Recovered(segments=[segment, other], branches=branches))
    assert (entry_store.segments, entry_store.entries, entry_store.waiting) == ([segment, other], 4, 4)
    done = [entry_store.done(each, index) for each in (segment, other) for index in (0, 2)]
    assert done == [jaeger, zipkin, zipkin, frozenset()]
    assert (segment.states[1], other.states[1]) == (RELEASED, RELEASED)
    assert segment.waiting_for == {(0, segment.states[0]): 1, (1, segment.states[2]): 1}
    assert other.waiting_for == {(0, segment.states[2]): 1, (1, WAITING): 1}
