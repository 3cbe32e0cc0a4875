"""What a commit writes to which segment, and how."""

import asyncio
import errno
import os

from structlog.testing import capture_logs

from otelwp_agent.journal.commits import GROUP_INTERVAL
from otelwp_agent.journal.records import RecordKind
from otelwp_agent.journal.segment import DisplacedError, Segment
from otelwp_agent.model.receipt import Outcome
from tests.kit.graphs import until


async def test_a_commit_is_forced_to_disk_if_it_has_requests(live, body, monkeypatch):
    life, synced = live(), []
    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(fd) or sync(fd))
    (one,) = await life.put(body(0))
    assert synced == [one.entry.segment.fd]
    one.settle()
    await life.flush()
    assert len(synced) == 1, "a release need not be"


async def test_without_a_thread_senders_are_refused_too_if_the_write_fails(live, body, monkeypatch):
    def broken(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    life = live(sync="none")
    monkeypatch.setattr(Segment, "write", broken)
    (one,) = await life.put(body(0))
    assert str(one.error) == "the journal cannot be written: Input/output error"


async def test_the_duration_of_a_commit_is_in_seconds(live, body):
    life = live()
    await life.put(body(0))
    (line,) = [line for line in life.registry.expose().splitlines() if "commit_duration_seconds_sum" in line]
    assert 0 < float(line.split()[-1]) < 5


async def test_entries_of_the_newest_segment_are_never_copied(live, body):
    life = live()
    life.journal._store._max_size = 1  # so that the journal is more than half full
    requests = await life.put(*[body(number) for number in range(20)])
    for request in requests[1:]:
        request.settle()
    (last,) = await life.put(body(20))
    assert last.entry.segment is requests[0].entry.segment
    assert RecordKind.MOVED not in {record.kind for record in last.entry.segment.scan()}


def displace_once(monkeypatch):
    """Let the next write find its segment gone."""
    write = Segment.write

    def displaced(segment, parts, *, sync):
        monkeypatch.setattr(Segment, "write", write)
        raise DisplacedError(segment.path)

    monkeypatch.setattr(Segment, "write", displaced)


async def test_a_segment_that_disappears_is_replaced_however_often_that_has_happened(live, body, monkeypatch):
    life = live()
    for number in range(3):
        displace_once(monkeypatch)
        (replaced,) = await life.put(body(number))
        (after,) = await life.put(body(10 + number))
        assert (replaced.error, after.error) == (None, None)
    assert life.journal.entries == 6


async def test_requests_whose_segment_disappears_are_written_before_those_that_arrive_meanwhile(
    live, body, monkeypatch
):
    life, later = live(), []
    writer = life.journal._commits._writer
    submit = writer.submit

    def meanwhile(work, done):
        monkeypatch.setattr(writer, "submit", submit)
        later.append(asyncio.ensure_future(life.put(body(2), body(3))))
        submit(work, done)

    monkeypatch.setattr(writer, "submit", meanwhile)
    displace_once(monkeypatch)
    requests = await life.put(body(0), body(1))
    requests += await later[0]
    assert [request.error for request in requests] == [None] * 4
    first = requests[0].entry.seq
    assert [request.entry.seq - first for request in requests] == [0, 1, 2, 3]


async def test_other_segments_that_have_disappeared_are_found_with_the_newest(live, body):
    """Without a wait for the check that follows each second."""
    life = live()
    (one,) = await life.put(body(0))
    life.journal._store.current = None
    (two,) = await life.put(body(1))
    for request in (one, two):
        request.entry.segment.path.unlink()
    (three,) = await life.put(body(2))
    await until(lambda: not life.journal._store.must_copy)
    assert one.entry.segment is two.entry.segment is three.entry.segment


async def test_a_copy_that_cannot_be_written_is_not_tried_again_at_once(live, body, monkeypatch):
    life, tries = live(), []

    def broken(*_, **__):
        tries.append(1)
        raise OSError(errno.EIO, "Input/output error")

    (one,) = await life.put(body(0))
    one.entry.segment.path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "write", broken)
        life.journal._commits._on_check()
        await until(lambda: not life.journal._commits.builder)
        await asyncio.sleep(3 * GROUP_INTERVAL)  # a commit that was scheduled would begin in this time
    assert (len(tries), life.journal._store.must_copy) == (1, True)
    life.journal._commits._check.cancel()
    life.journal._failure.refuse_until = 0.0
    (two,) = await life.put(body(1))
    assert one.entry.segment is two.entry.segment


async def test_branches_that_are_done_are_copied_with_their_entry(live, body, monkeypatch):
    life = live()
    (old,) = await life.put(body(0))
    waiting = old.claims[0].receipt.fork(["x", "y"])
    waiting[0].settle(Outcome.DELIVERED, 2)
    await life.flush()
    life.journal._store.current = None
    (new,) = await life.put(body(1))
    lost = old.entry.segment
    lost.path.unlink()
    new.claims[0].receipt.fork(["v", "w"])[0].settle(Outcome.DELIVERED, 2)
    monkeypatch.setattr(life.journal._commits, "_schedule", lambda: None)  # the agent is killed before the next commit
    life.journal._commits._on_check()
    await until(lambda: old.entry.segment is not lost)
    life.kill()
    second = live()
    assert {record.body(): entry.done for entry, record, _ in second.replay()} == {
        body(0): {(0, "x")},
        body(1): {(0, "v")},
    }


async def test_entries_that_cannot_be_copied_are_reported_once(live, body):
    life = live()
    (one,) = await life.put(body(0))
    segment = one.entry.segment
    os.pwrite(segment.fd, b"damage", segment.offsets[0])
    segment.path.unlink()
    with capture_logs() as log:
        life.journal._commits._on_check()
        await until(lambda: not life.journal._store.must_copy)
    reports = [line for line in log if line["event"].startswith("journal entries cannot be copied")]
    assert [(line["file"], line["entries"]) for line in reports] == [(str(segment.path), 1)]
    one.settle()
    await life.flush()
