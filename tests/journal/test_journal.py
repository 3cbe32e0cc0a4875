import asyncio
import errno
import os

import pytest
from structlog.testing import capture_logs

from otelwp_agent.errors import Overloaded, StartError
from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.journal.commits import CommitLoop
from otelwp_agent.model.receipt import Outcome
from tests.journal.conftest import KEYS, Request


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
    assert audit_directory(second.journal.directory, KEYS).balances
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


async def test_a_close_writes_what_waits_and_refuses_what_comes_after(live, body):
    life = live()
    requests = [Request(life, body(number), 2, ("traces",), "") for number in range(3)]
    for request in requests:
        life.journal.append(request)
    async with asyncio.timeout(60):
        await asyncio.gather(life.journal.close(), life.journal._commits.quiet())
    assert all(request.entry is not None for request in requests)
    late = Request(life, body(3), 2, ("traces",), "")
    with pytest.raises(Overloaded, match="shutting down"):
        life.journal.append(late)
    requests[0].settle()  # by who was too slow for the stop: it comes again
    second = live()
    assert second.bodies() == [body(number) for number in range(3)]


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
