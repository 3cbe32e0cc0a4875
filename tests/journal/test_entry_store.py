import errno
import os

import pytest
from structlog.testing import capture_logs

from otelwp_agent.journal import entry_store as shelves
from otelwp_agent.journal.commits import CommitLoop
from otelwp_agent.journal.segment import FIRST_PARTLY_DONE, RELEASED, RUNNING, WAITING
from otelwp_agent.model.receipt import Outcome
from tests.journal.entries import make, settle


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
    entry_store.add(segment, [(0, 0, 1)] * 39 + [(0, 1, 1)])
    for index in range(40):
        settle(entry_store, entry_store.begin(segment, index, 1, 40), parked=True)
    found = list(entry_store.replays(lambda context, _: context.pipelines == ("free",)))
    assert [replay and replay.entry.index for replay in found] == [None, None, None, 39]
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
    for pruned in entry_store.prune():
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
    assert entry_store.prune() == [], "it is not settled"
    settle(entry_store, entry)
    assert entry_store.prune() == [], "that it is settled is not on disk"
    old.kept = 0
    assert entry_store.prune() == [old]
    assert entry_store.prune() == [], "the last one has the accounts"
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
