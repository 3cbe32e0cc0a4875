"""Writes, fsyncs and deletions of a journal that fail."""

import asyncio
import errno
import os
import shutil

import pytest
from structlog.testing import capture_logs

from otelwp_agent.errors import Overloaded
from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.receipt import Outcome
from tests.journal.conftest import KEYS
from tests.kit.graphs import until


async def test_a_disk_that_is_full_refuses_and_recovers(live, body, monkeypatch):
    life = live()
    await life.put(body(0))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", full)
        (request,) = await life.put(body(1))
        assert isinstance(request.error, Overloaded)
        assert "No space left" in str(request.error)
        assert life.sums() == (2, [0, 0, 0, 0], 2), "what was not taken is in no account"
        with pytest.raises(Overloaded, match="cannot be written"):
            life.journal.admit()
    life.journal._failure.refuse_until = 0.0
    await life.put(body(2))
    assert life.journal.failure == ""
    life.kill()
    assert live().bodies() == [body(0), body(2)]


async def test_after_a_failed_fsync_another_segment_is_begun(live, body, monkeypatch):
    life = live()
    await life.put(body(0))

    def broken(_fd):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        (request,) = await life.put(body(1))
    assert request.error is not None
    life.journal._failure.refuse_until = 0.0
    await life.put(body(2))
    assert len(list(life.journal.directory.glob("*.journal"))) == 2
    life.kill()
    assert live().bodies() == [body(0), body(2)]


async def test_a_segment_whose_name_may_not_be_on_disk_is_not_written_to(live, body, monkeypatch):
    life = live()
    fsync, calls = os.fsync, []

    def broken_once(fd):
        calls.append(fd)
        if len(calls) == 1:
            raise OSError(errno.EIO, "Input/output error")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", broken_once)
    (request,) = await life.put(body(0))
    assert isinstance(request.error, Overloaded)
    life.journal._failure.refuse_until = 0.0
    (request,) = await life.put(body(0))
    assert (request.error, len(calls)) == (None, 2)
    assert len(list(life.journal.directory.glob("*.journal"))) == 1


async def test_no_number_means_two_entries_even_if_what_failed_cannot_be_cut_off(live, body, monkeypatch):
    life = live()
    await life.put(body(0))

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        patch.setattr(os, "ftruncate", broken)
        await life.put(body(1))
    life.journal._failure.refuse_until = 0.0
    await life.put(body(2))
    life.kill()
    second = live()
    replays = second.replay()
    assert [record.body() for _, record, _ in replays] == [body(0), body(1), body(2)]
    second.journal.closed(replays[1][0])  # it settles, and takes nothing else with it
    await second.flush()
    second.kill()
    assert live().bodies() == [body(0), body(2)]


async def test_a_segment_that_cannot_be_deleted_stops_nothing_and_is_told(live, body, monkeypatch):
    life = live(max_size="4MiB")
    refused = []

    def cannot(segment):
        refused.append(segment)
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Segment, "delete", cannot)
    with capture_logs() as logs:
        while not refused:
            (request,) = await life.put(bytes(100_000))
            request.settle()
        life.journal._store._deleter.close()
        await asyncio.sleep(0)
    assert next(line["event"] for line in logs) == "journal segment not deleted"
    await life.put(body(1))
    refused[0].close()


@pytest.mark.parametrize("sync", ["group", "none"])
async def test_a_bug_in_writing_is_told_to_who_waits_and_the_next_write_succeeds(live, body, monkeypatch, sync):
    life = live(sync=sync)
    await life.put(body(0))

    def broken(*_):
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", broken)
        async with asyncio.timeout(60):
            (request,) = await life.put(body(1))
    assert "a bug" in str(request.error)
    life.journal._failure.refuse_until = 0.0
    await life.put(body(2))
    life.kill()
    assert live().bodies() == [body(0), body(2)]


async def test_what_a_failed_write_would_have_said_the_next_one_says(live, body, monkeypatch):
    life = live()
    settled, half, _ = await life.put(body(0), body(1), body(2), pipelines=("a", "b"))
    settled.settle()
    half.claims[0].receipt.settle(Outcome.DELIVERED, 2)

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", broken)
        await life.flush()
    await life.flush()
    life.kill()
    assert audit_directory(life.journal.directory, KEYS).balances
    second = live()
    assert second.sums("a") == (6, [4, 0, 0, 0], 2)
    assert {replay[1].body(): replay[0].done for replay in second.replay()} == {
        body(1): {(0, "")},
        body(2): frozenset(),
    }


async def test_a_directory_that_was_removed_is_made_again_with_all_entries_and_the_reserve(live, body):
    life = live()
    await life.put(body(0), body(1))
    shutil.rmtree(life.journal.directory)
    assert (await life.put(body(2)))[0].error is None
    await until(lambda: not life.journal._store.must_copy)
    assert (life.journal.directory / "reserve").stat().st_size > 0
    value = life.registry.value
    assert value("otelwp_journal_displaced_segments") == 1
    assert value("otelwp_journal_entries") == life.journal.entries == 3
    assert value("otelwp_journal_bytes") == life.journal.stored > 0
    life.kill()
    assert sorted(live().bodies()) == [body(0), body(1), body(2)]
