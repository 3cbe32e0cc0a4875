"""The counts and states of entries that are written, moved, released and restored."""

import os

import pytest
from structlog.testing import capture_logs

from otelwp_agent.journal.records import HEADER_BYTES, RequestContext
from otelwp_agent.journal.recovery import Recovered
from otelwp_agent.journal.segment import FIRST_PARTLY_DONE, RELEASED, RUNNING, WAITING
from otelwp_agent.model.batch import Origin
from tests.journal.entries import counts, make, settle, unreadable_at, write


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


def test_waiting_entries_move_with_their_branches(entry_store, segment, other):
    for entry in write(entry_store, segment, *[(0, 5, b"")] * 3):
        settle(entry_store, entry, parked=True, done={(0, "jaeger")})
    write(entry_store, other)
    entry_store.add(other, [(0, 1, 5), (9, 1, 5)])
    assert entry_store.move(segment, 0, other, 0, 50) is False
    assert entry_store.move(segment, 1, other, 1, 60) is False
    assert segment.waiting_for == {(0, FIRST_PARTLY_DONE): 1}
    assert other.waiting_for == {(1, FIRST_PARTLY_DONE): 2}
    assert [entry_store.done(other, index) for index in range(2)] == [{(0, "jaeger")}] * 2
    assert (segment.live, segment.kept, other.live, other.live_bytes) == (1, 1, 2, 110)


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
    assert entry_store.prune() == segments[:2]
    assert entry_store.segments == segments[2:]
    segments[2].kept = 0
    assert entry_store.prune() == segments[2:4], "the newest stays"
    assert entry_store.segments == segments[4:]
    for segment in segments:
        segment.close()


def test_waiting_entries_are_restored_with_their_branches(entry_store, segment, other):
    for each, first in ((segment, 10), (other, 20)):
        each.states.extend(bytes([WAITING, RELEASED, WAITING]))
        each.context_numbers.extend([0, 1, 1])
        each.sizes.extend([1, 1, 1])
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


def test_the_bytes_of_unsettled_entries_are_counted_by_tenant(entry_store, segment, other):
    for each in (segment, other):
        each.contexts[2] = RequestContext(Origin("otlp", "http", "shop"), ("a",))
        each.contexts[3] = RequestContext(Origin("otlp", "http", "blog"), ("a",))
    shop, blog, none, lost = write(
        entry_store, segment, (2, 1, bytes(100)), (3, 1, bytes(10)), (0, 1, b"x"), (7, 1, b"")
    )
    head = HEADER_BYTES

    def used():
        return (entry_store.used, entry_store.use.of("shop"), entry_store.use.of("blog"), len(entry_store.use))

    assert used() == (4 * head + 111, head + 100, head + 10, 2)
    assert list(segment.sizes) == [head + 100, head + 10, head + 1, head]
    settle(entry_store, blog, parked=True)
    assert used() == (4 * head + 111, head + 100, head + 10, 2), "it is not released"
    write(entry_store, other)
    entry_store.add(other, [(0, 2, 1), (0, 3, 1)])
    entry_store.move(segment, 0, other, 0, head + 108)
    entry_store.move(segment, 1, other, 1, head + 18)
    assert used() == (4 * head + 127, head + 108, head + 18, 2), "the copies are 8 bytes larger"
    for entry in (none, lost, shop):
        settle(entry_store, entry)
    assert used() == (head + 18, 0, head + 18, 1)
    assert list(other.sizes) == [head + 108, head + 18]


def test_the_bytes_of_restored_entries_are_counted_by_tenant(entry_store, segment):
    segment.contexts[2] = RequestContext(Origin("otlp", "http", "shop"), ("a",))
    segment.states.extend(bytes([RELEASED, WAITING, WAITING]))
    segment.context_numbers.extend([2, 2, 0])
    segment.sizes.extend([1, 2, 4])
    entry_store.restore(Recovered(segments=[segment]))
    assert (entry_store.used, entry_store.use.of("shop")) == (6, 2)


def test_a_new_store_is_empty(entry_store):
    assert (entry_store.entries, entry_store.used, entry_store.stored, entry_store.waiting) == (0, 0, 0, 0)
    assert (entry_store.segments, entry_store.unreadable, len(entry_store.use)) == ([], {}, 0)
