"""The files of the segment store: when one is begun, copied, deleted and closed."""

import asyncio
import errno
import os
import threading

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.at_rest.slots import key_ids
from otelwp_agent.config.service import JournalConfig
from otelwp_agent.journal import records
from otelwp_agent.journal.journal import Journal
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.telemetry.metrics import Registry
from tests.journal.conftest import KEYS, PLAIN, open_files
from tests.kit.graphs import until

ADVICE = "find out who removes files there: only the agent may change this directory while it runs"


@pytest.fixture
def log():
    with capture_logs() as lines:
        yield lines


@PLAIN
def test_keys_are_for_the_segments_that_begin_later(live):
    store = live().journal._store
    plain = store.newest()
    for keys, ids in ((KEYS, list(KEYS.ids)), (None, [])):
        store.use_keys(keys)
        segment = store.newest()
        assert segment is not plain
        assert (key_ids(segment.data_key), segment.cipher is not None) == (ids, bool(ids))
        assert store.newest() is segment
    assert plain.cipher is None


@pytest.mark.parametrize(
    ("max_size", "size"),
    [("1MiB", 2**18), ("64MiB", 2**22), ("65MiB", 65 * 2**16), ("1GiB", 2**24), (2**26 + 8, 2**22)],
)
def test_a_segment_is_a_sixteenth_of_the_journal_within_limits(live, max_size, size):
    store = live(max_size=max_size).journal._store
    first = store.newest()
    first.size = size - 1
    assert store.newest() is first
    first.size = size
    assert store.newest() is not first


def test_a_new_segment_is_begun_when_the_newest_has_many_contexts(live, monkeypatch):
    monkeypatch.setattr(records, "MAX_CONTEXTS", 19)
    store = live().journal._store
    first = store.newest()
    store.context_numbers.update({("a",): 0, ("b",): 1, ("c",): 2})
    assert store.newest() is first
    store.context_numbers["d",] = 3
    assert store.newest() is not first


def test_segments_are_numbered_and_begin_with_the_next_entry(live):
    store = live().journal._store
    first = store.newest()
    store.current, store.next = None, 7
    second = store.newest()
    assert [(each.number, each.first) for each in (first, second)] == [(1, 1), (2, 7)]
    assert store._entry_store.segments == [first, second]
    assert store.current is second


async def test_numbers_of_segments_and_entries_continue_after_a_restart(live, body):
    first = live()
    await first.put(body(0), body(1))
    first.kill()
    store = live().journal._store
    segment = store.newest()
    assert (segment.number, segment.first) == (2, 3)


def test_the_name_of_a_new_segment_is_forced_to_disk(live, monkeypatch):
    store, synced = live().journal._store, []
    monkeypatch.setattr(os, "fsync", synced.append)
    store.newest()
    assert synced == [store.lock]


def test_a_segment_whose_name_cannot_be_forced_to_disk_is_removed(live, monkeypatch):
    store = live().journal._store

    def broken(_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="Input/output error"):
            store.newest()
    assert (list(store.directory.glob("*.journal")), store.current, store._entry_store.segments) == ([], None, [])
    assert store.newest().number == 2


async def test_closing_closes_every_file_and_unlocks_the_directory(live, body):
    life = live()
    settled, *_ = await life.put(body(0), body(1))
    store = life.journal._store
    store.current = None
    await life.put(body(2))
    settled.settle()
    store._settled.append(Segment.create(life.journal.directory, 9, 9))
    assert len(open_files(life.journal.directory)) == 5, "the directory, the mark and three segments"
    store.close()
    assert open_files(life.journal.directory) == []
    assert (store.lock, store.current, life.journal.stored) == (-1, None, 0)
    store.close()


class Sizes:
    """A store with three segments, of which the first two hold unsettled bytes as given."""

    def __init__(self, life, live_bytes):
        self.store = life.journal._store
        for number, count in enumerate([*live_bytes, 0], 1):
            segment = Segment.create(life.journal.directory, number, number)
            segment.live_bytes, segment.size = count, 400
            self.store._entry_store.segments.append(segment)
        self.store._max_size = 2400
        self.oldest, *_, self.newest = self.store._entry_store.segments


@pytest.mark.parametrize(
    ("live_bytes", "max_size", "copied"),
    [(1, 2400, True), (100, 2400, True), (101, 2400, False), (0, 2400, False), (1, 2401, False), (1, 2399, True)],
)
def test_the_oldest_segment_is_copied_when_a_quarter_is_unsettled_and_half_of_the_journal_is_full(
    live, live_bytes, max_size, copied
):
    sizes = Sizes(live(), [live_bytes, 300])
    sizes.store._max_size = max_size
    assert sizes.store.source(sizes.newest) is (sizes.oldest if copied else None)
    assert sizes.store.source(sizes.oldest) is None, "it is not copied into itself"


def test_segments_that_disappeared_are_copied_first_while_they_have_unsettled_entries(live):
    sizes = Sizes(live(), [1, 300])
    first, second, third = sizes.store._entry_store.segments
    first.live, second.live, third.live = 0, 1, 1
    sizes.store._displaced = [first, second, third]
    assert sizes.store.must_copy
    assert sizes.store.source(sizes.newest) is second
    second.live = third.live = 0
    assert sizes.store.source(sizes.newest) is first
    assert not sizes.store.must_copy


async def test_a_commit_that_fails_in_a_new_segment_removes_its_file(live, body, monkeypatch):
    life = live()

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        await life.put(body(0))
    assert list(life.journal.directory.glob("*.journal")) == []
    assert (life.journal._entry_store.segments, life.journal._store.current) == ([], None)
    assert life.journal._store.next == 2, "its number may be in the file and is not used again"
    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr(os, "fdatasync", broken)
        patch.setattr(os, "unlink", broken)
        life.journal._failure.refuse_until = 0.0
        await life.put(body(0))
    (path,) = life.journal.directory.glob("*.journal")
    assert {
        "event": "journal segment not deleted",
        "log_level": "warning",
        "file": str(path),
        "error": "[Errno 5] Input/output error",
    } in lines


async def test_a_commit_that_fails_leaves_the_entries_before_it_in_their_segment(live, body, monkeypatch):
    life = live()

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    await life.put(body(0))
    (segment,) = life.journal._entry_store.segments
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        await life.put(body(1))
    assert (life.journal._entry_store.segments, life.journal._store.current) == ([segment], None)
    assert segment.path.exists()
    assert life.journal._store.next == 3
    life.journal._failure.refuse_until = 0.0
    (request,) = await life.put(body(2))
    assert (request.entry.segment.number, request.entry.seq) == (2, 3)


async def test_settled_segments_are_deleted_in_order_and_beside_the_event_loop(live, monkeypatch, log):
    store = live().journal._store
    created = [Segment.create(store.directory, number, number) for number in range(1, 5)]
    store._entry_store.segments += created
    real, tried, failing, threads = Segment.delete, [], [created[1]], set()

    def delete(segment):
        tried.append(segment)
        threads.add(threading.current_thread().name)
        if segment in failing:
            raise OSError(errno.EROFS, "Read-only file system")
        real(segment)

    monkeypatch.setattr(Segment, "delete", delete)
    warning = {
        "event": "journal segment not deleted",
        "log_level": "warning",
        "file": str(created[1].path),
        "error": "[Errno 30] Read-only file system",
    }

    async def deleted(count):
        store.delete_settled()
        store.delete_settled()
        await until(lambda: len(tried) == count and not store._deleting)

    await deleted(2)
    await deleted(3)
    assert tried == [created[0], created[1], created[1]]
    assert log == [warning], "reported once"
    failing[:] = [created[2]]
    await deleted(5)
    assert tried[3:] == [created[1], created[2]]
    assert log == [warning, {**warning, "file": str(created[2].path)}], "another one is reported, too"
    failing.clear()
    await deleted(6)
    assert sorted(store.directory.glob("*.journal")) == [created[3].path], "the newest has the sums"
    assert store._entry_store.segments == [created[3]]
    assert threads == {"journal, deleting"}


async def test_a_segment_that_is_deleted_during_the_close_is_the_last_one(live):
    store = live().journal._store
    created = [Segment.create(store.directory, number, number) for number in range(1, 4)]
    store._entry_store.segments += created
    store.delete_settled()
    store.close()
    await asyncio.sleep(0)  # the report of the deletion
    assert sorted(store.directory.glob("*.journal")) == [created[1].path, created[2].path]
    assert open_files(store.directory) == []


def test_a_store_that_is_not_open_holds_nothing(tmp_path):
    settings = JournalConfig(directory=str(tmp_path))
    store = Journal(settings, Ledgers(), Registry(), structlog.get_logger())._store
    assert (store.lock, store.next, store.adjusted, store.current, store.context_numbers) == (-1, 1, False, None, {})
    assert (store.problem, store.must_copy) == ("", False)
