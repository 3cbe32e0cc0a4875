"""Waiting entries that are read again: which, in which order, and what happens if that fails."""

import os
from types import SimpleNamespace

import structlog
from structlog.testing import capture_logs

from otelwp_agent.journal import entry_store as shelves
from otelwp_agent.journal.entry_store import READ_INTERVAL, EntryStore
from otelwp_agent.journal.records import HEADER_BYTES
from otelwp_agent.journal.segment import RUNNING, WAITING
from tests.journal.entries import always, counts, settle, unreadable_at, write


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
    found, asked = [], []

    def ready(context, _done):
        asked.append(context.pipelines)
        return capacity[context.pipelines] > 0

    for replay in entry_store.replays(ready):
        found.append(replay.record.body())
        capacity[replay.context.pipelines] -= 1
    assert found == [b"0", b"1", b"3", b"5"]
    assert asked.count(("a",)) == 3, "before all entries, before the first and before the second, but not the third"
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
