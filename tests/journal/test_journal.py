import asyncio
import errno
import os

import pytest
from structlog.testing import capture_logs

from otelwp_agent.errors import Overloaded, StartError
from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.journal.commits import CommitLoop
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.receipt import Outcome
from tests.journal.conftest import Request


async def test_what_is_not_settled_comes_back_after_a_kill_in_the_order_in_which_it_came(live, body):
    first = live()
    requests = await first.put(*[body(number) for number in range(10)])
    requests[3].settle()
    requests[7].settle(Outcome.SAMPLED_OUT)
    await first.flush()
    assert first.sums() == (20, [2, 2, 0, 0], 16)
    first.kill()

    second = live()
    assert second.sums() == (20, [2, 2, 0, 0], 16)
    assert second.bodies() == [body(number) for number in (0, 1, 2, 4, 5, 6, 8, 9)]
    assert second.journal.live() == {("traces", "otlp", ""): 16}


async def test_a_release_that_was_not_written_comes_back_as_an_entry_that_was_not_settled(live, body):
    first = live()
    (request,) = await first.put(body(1))
    request.settle()  # and the agent dies before anything is written of it
    first.kill()
    second = live()
    assert (second.sums(), second.bodies()) == ((2, [0, 0, 0, 0], 2), [body(1)])


async def test_nothing_is_left_when_everything_is_settled(live, body):
    first = live()
    for request in await first.put(body(1), body(2)):
        request.settle()
    await first.journal.close()
    second = live()
    assert (second.bodies(), second.sums()) == ([], (4, [4, 0, 0, 0], 0))
    second.kill()
    third = live()
    assert (third.bodies(), third.sums()) == ([], (4, [4, 0, 0, 0], 0)), "though nothing was written in between"
    await third.put(body(3))
    assert len(third.journal._entry_store.segments) == 1, "the segment of the runs before is gone"


async def test_what_is_being_written_is_in_flight(live, body):
    life = live()
    submit, seen = life.journal._commits._writer.submit, []

    def spy(work, done):
        submit(work, done)
        seen.append((life.ledgers.get("traces", "otlp", "").accepted, life.journal.live()))

    life.journal._commits._writer.submit = spy
    await life.put(body(1))
    assert seen[0] == (2, {("traces", "otlp", ""): 2})
    assert life.journal.live() == {("traces", "otlp", ""): 2}


async def test_a_part_of_a_request_settles_with_the_rest_of_it(live, body):
    life = live()
    (request,) = await life.put(body(1))
    request.claims[0].receipt.settle(Outcome.SAMPLED_OUT, 1)
    assert life.sums() == (2, [0, 0, 0, 0], 2), "after a crash both items would come again"
    request.claims[0].receipt.settle(Outcome.DROPPED, 1, "malformed")
    assert life.sums() == (2, [0, 1, 0, 1], 0)


async def test_requests_that_come_together_are_written_together(live, body):
    life = live()
    await life.put(*[body(number) for number in range(50)])
    assert life.registry.value("otelwp_journal_commits") == 1
    always = live  # the same directory is taken
    with pytest.raises(StartError, match="another agent is using"):
        always()


async def test_with_always_each_is_written_by_itself(live, body):
    life = live(sync="always")
    await life.put(*[body(number) for number in range(5)])
    assert life.registry.value("otelwp_journal_commits") == 5


async def test_without_sync_nothing_waits_for_the_disk(live, body, monkeypatch):
    life = live(sync="none")
    monkeypatch.setattr(os, "fdatasync", None)
    (request,) = await life.put(body(1))
    assert request.entry is not None


async def test_a_full_journal_refuses_until_something_is_settled(live):
    life = live(max_size="1MiB")
    body = bytes(100_000)
    taken = []
    while life.journal.stored + len(body) < 2**20:
        taken += await life.put(body)
    taken += await life.put(body)
    with pytest.raises(Overloaded, match="the journal is full"):
        await life.put(body)
    for request in taken:
        request.settle()
    await life.flush()
    await life.put(body)
    assert life.journal.stored < 400_000


async def test_one_old_request_does_not_keep_the_disk(live):
    life = live(max_size="4MiB")
    body = bytes(50_000)
    (old,) = await life.put(b"old" + body)
    for _ in range(200):
        (request,) = await life.put(body)
        request.settle()
    assert life.journal.stored < 3 * 2**20
    assert life.journal.live() == {("traces", "otlp", ""): 2}
    await life.flush()
    life.kill()
    second = live(max_size="4MiB")
    assert [found[:3] for found in second.bodies()] == [b"old"]
    assert second.sums() == (402, [400, 0, 0, 0], 2)
    assert audit_directory(second.journal.directory).balances
    old.settle()


async def test_what_moves_while_it_is_settled_is_released_where_it_has_come_to(live, monkeypatch):
    life = live(max_size="4MiB")
    body = bytes(50_000)
    (old,) = await life.put(body)
    real = CommitLoop._written

    def settled_meanwhile(self, builder):
        if builder.moved:
            old.settle()
        real(self, builder)

    monkeypatch.setattr(CommitLoop, "_written", settled_meanwhile)
    for _ in range(200):
        (request,) = await life.put(body)
        request.settle()
    await life.flush()
    life.kill()
    assert live(max_size="4MiB").bodies() == []


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


async def test_a_torn_last_write_is_forgotten_and_what_was_before_it_is_not(live, body):
    first = live()
    await first.put(body(0))
    size = first.journal._entry_store.segments[-1].size
    await first.put(body(1))
    first.kill()
    path = first.journal._entry_store.segments[-1].path
    os.truncate(path, size + 50)  # within the second entry
    second = live()
    assert (second.bodies(), second.sums()) == ([body(0)], (2, [0, 0, 0, 0], 2))
    assert second.recovered.torn == 50
    assert second.recovered.damage == []


async def test_an_entry_whose_commit_is_torn_may_have_been_acknowledged(live, body):
    first = live()
    await first.put(body(0))
    await first.put(body(1))
    first.kill()
    segment = first.journal._entry_store.segments[-1]
    os.truncate(segment.path, segment.size - 3)  # within the commit that follows the second entry
    second = live()
    assert (second.bodies(), second.sums()) == ([body(0), body(1)], (4, [0, 0, 0, 0], 4))


async def test_a_damaged_entry_is_counted_and_costs_no_other(live, body):
    first = live()
    for number in range(3):
        await first.put(body(number))
    first.kill()
    segment = first.journal._entry_store.segments[-1]
    with segment.path.open("r+b") as file:
        file.seek(segment.offsets[1] + 40)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    assert not audit_directory(first.journal.directory).balances
    second = live()
    assert second.bodies() == [body(0), body(2)]
    assert second.sums() == (6, [0, 0, 0, 2], 4)
    assert second.ledgers.get("traces", "otlp", "").dropped_reasons == {"journal_damaged": 2}
    assert second.registry.value("otelwp_journal_damaged_bytes") > 0


async def test_damage_that_comes_while_the_agent_runs_is_counted_when_it_is_met(live, body):
    first = live()
    await first.put(body(0), body(1))
    first.kill()
    second = live()
    segment = second.journal._entry_store.segments[0]
    os.pwrite(segment.fd, b"\xff" * 8, segment.offsets[0] + 40)
    assert second.bodies() == [body(1)]
    assert second.sums() == (4, [0, 0, 0, 2], 2)


async def test_a_pipeline_that_is_done_is_not_asked_again(live, body):
    first = live()
    (request,) = await first.put(body(0), pipelines=("traces/a", "traces/b"))
    request.claims[0].receipt.settle(Outcome.DELIVERED, 2)
    await first.flush()
    first.kill()
    second = live()
    assert second.sums("traces/a") == (2, [2, 0, 0, 0], 0)
    assert second.sums("traces/b") == (2, [0, 0, 0, 0], 2)
    (replay,) = second.replay()
    assert replay[0].done == {(0, "")}


async def test_what_is_parked_waits_and_comes_back_for_the_branch_that_is_left(live, body):
    life = live()
    (request,) = await life.put(body(0))
    (claim,) = request.claims
    left, right = claim.receipt.fork(["jaeger", "zipkin"])
    right.park(2)
    assert life.journal.waiting == 0
    left.settle(Outcome.DELIVERED, 2)
    assert (life.journal.waiting, life.sums()) == (1, (2, [0, 0, 0, 0], 2))
    await life.flush()
    life.kill()
    second = live()
    (replay,) = second.replay()
    assert replay[0].done == {(0, "jaeger")}


async def test_a_branch_that_is_done_is_remembered_while_another_runs(live, body):
    life = live()
    (request,) = await life.put(body(0))
    left, _ = request.claims[0].receipt.fork(["jaeger", "zipkin"])
    left.settle(Outcome.DELIVERED, 2)
    await life.flush()
    life.kill()
    (replay,) = live().replay()
    assert replay[0].done == {(0, "jaeger")}


async def test_a_branch_is_not_done_before_everything_has_come_to_it(live, body):
    life = live()
    (request,) = await life.put(body(0))
    part = request.claims[0].receipt.part(1)  # the other item is still in some buffer
    left, _ = part.fork(["jaeger", "zipkin"])
    left.settle(Outcome.DELIVERED, 1)
    await life.flush()
    life.kill()
    (replay,) = live().replay()
    assert replay[0].done == frozenset()


async def test_tenants_have_accounts_of_their_own(live, body):
    first = live()
    (one,) = await first.put(body(0), tenant="one")
    await first.put(body(1), tenant="two")
    one.settle()
    await first.flush()
    first.kill()
    second = live()
    assert second.sums(tenant="one") == (2, [2, 0, 0, 0], 0)
    assert second.sums(tenant="two") == (2, [0, 0, 0, 0], 2)


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
        async with asyncio.timeout(5):
            (request,) = await life.put(body(1))
    assert "a bug" in str(request.error)
    life.journal._failure.refuse_until = 0.0
    await life.put(body(2))
    life.kill()
    assert live().bodies() == [body(0), body(2)]


async def test_a_close_writes_what_waits_and_refuses_what_comes_after(live, body):
    life = live()
    requests = [Request(life, body(number), 2, ("traces",), "") for number in range(3)]
    for request in requests:
        life.journal.append(request)
    async with asyncio.timeout(5):
        await asyncio.gather(life.journal.close(), life.journal._commits.quiet())
    assert all(request.entry is not None for request in requests)
    late = Request(life, body(3), 2, ("traces",), "")
    with pytest.raises(Overloaded, match="shutting down"):
        life.journal.append(late)
    requests[0].settle()  # by who was too slow for the stop: it comes again
    second = live()
    assert second.bodies() == [body(number) for number in range(3)]


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
    assert audit_directory(life.journal.directory).balances
    second = live()
    assert second.sums("a") == (6, [4, 0, 0, 0], 2)
    assert {replay[1].body(): replay[0].done for replay in second.replay()} == {
        body(1): {(0, "")},
        body(2): frozenset(),
    }


async def test_health_names_what_the_journal_holds(live, body):
    life = live(max_size="1MiB")
    one, _ = await life.put(body(0), body(1))
    health = life.journal.health()
    assert (health.id, health.healthy, health.message) == ("journal", True, "")
    assert health.details == {
        "directory": str(life.journal.directory),
        "bytes": life.journal.stored,
        "max_size": 2**20,
        "entries": 2,
        "waiting_entries": 0,
    }
    assert life.journal.stored == sum(path.stat().st_size for path in life.journal.directory.glob("*.journal"))
    one.claims[0].refuse()
    assert (life.journal.health().details["waiting_entries"], life.journal.waiting) == (1, 1)


async def test_health_says_what_is_wrong_the_worst_first(live):
    journal = live(max_size="1MiB").journal
    journal._admission.unwritten = 2**20
    assert journal.health().message == "full: senders are refused until something has been delivered"
    journal._store._reported_until = float("inf")
    assert journal.health().message.startswith("segments or the directory were removed or replaced: ")
    journal._entry_store.unreadable = {1: 0.0, 2: 0.0}
    assert journal.health().message == "2 entries cannot be read: check the disk"
    journal._failure.set(OSError(errno.EIO, "Input/output error"))
    health = journal.health()
    assert (health.healthy, health.message) == (False, "cannot be written: Input/output error")
    assert journal.failure == "Input/output error"
    journal._admission.unwritten = 0


async def test_a_request_that_is_refused_is_counted_by_its_reason(live, body):
    life = live(max_size="1MiB")
    life.journal._admission.unwritten = 2**20
    life.journal._admission.measure()
    with pytest.raises(Overloaded, match="the journal is full"):
        await life.put(body(0))
    life.journal._admission.unwritten = 0
    await life.journal.close()
    with pytest.raises(Overloaded, match="shutting down"):
        await life.put(body(0))
    assert life.registry.value("otelwp_journal_refused_entries", reason="journal_full") == 1
    assert life.registry.value("otelwp_journal_refused_entries", reason="shutting_down") == 1


async def test_who_waits_for_an_entry_and_who_waits_for_any_hear_that_it_is_closed(live, body):
    life = live()
    heard = []
    life.journal.on_closed = lambda: heard.append("any")
    one, two = await life.put(body(0), body(1))
    one.entry.on_closed = heard.append
    one.settle()
    assert heard == [one.entry, "any"]
    two.settle()
    assert heard == [one.entry, "any", "any"]
    assert life.journal.entries == 0


async def test_reading_a_journal_is_logged_with_what_was_found(live, body):
    first = live()
    await first.put(body(0), body(1))
    first.kill()
    path = first.journal._entry_store.segments[-1].path
    with path.open("ab") as file:
        file.write(b"torn")
    with capture_logs() as logs:
        second = live()
    assert logs == [
        {
            "event": "journal read",
            "log_level": "info",
            "entries": 2,
            "bytes": second.journal.stored,
            "torn_bytes": 4,
            "settled_again": 0,
        }
    ]


async def test_a_new_journal_has_nothing_to_report(live):
    with capture_logs() as logs:
        life = live()
    assert logs == []
    assert (life.journal.entries, life.journal.waiting, life.journal.failure) == (0, 0, "")
    assert life.registry.value("otelwp_journal_damaged_bytes") == 0


async def test_items_that_are_not_settled_are_counted_by_pipeline_receiver_and_tenant(live, body):
    life = live()
    await life.put(body(0), pipelines=("a", "b"), tenant="shop")
    await life.put(body(1), pipelines=("a",), tenant="shop", items=3)
    assert life.journal.live() == {("a", "otlp", "shop"): 5, ("b", "otlp", "shop"): 2}
    submit, during = life.journal._commits._writer.submit, []

    def spy(work, done):
        during.append(life.journal.live())
        submit(work, done)

    life.journal._commits._writer.submit = spy
    await life.put(body(2), pipelines=("a", "c"), tenant="shop")
    assert during == [{("a", "otlp", "shop"): 7, ("b", "otlp", "shop"): 2, ("c", "otlp", "shop"): 2}]
    assert life.journal.live() == during[0]
