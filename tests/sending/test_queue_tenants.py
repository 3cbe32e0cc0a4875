"""The share of each tenant of a sending queue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from otelwp_agent.capacity import Capacity, Offer
from otelwp_agent.config.blocks import Queue
from otelwp_agent.errors import Overloaded
from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.queue import SHARE_BYTES, SendingQueue
from tests.kit.queues import a_batch, a_queue, of, taken

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch


def test_a_tenants_share_reports_when_anything_is_released():
    queue = a_queue(queue_size=5, max_tenant_share=0.5)
    for tenant in ("loud", "quiet", "loud"):
        queue.put(of(tenant))
    share = queue.refusal(of("loud")).capacity
    assert (share.share, share.root, share.short) == ("loud", queue.space, True)
    assert queue.refusal(of("new")) is None
    loud, _, quiet = sorted([taken(queue) for _ in range(3)], key=lambda entry: entry.batch.origin.tenant)
    queue.release(quiet)
    assert not share.short, "the share is larger"
    assert queue.refusal(of("loud")).capacity.short
    queue.release(loud)
    queue.put(of("loud"))


def test_how_full_it_is_for_a_tenant():
    queue = a_queue(queue_size=10, max_tenant_share=0.5, max_bytes=100_000)
    for _ in range(2):
        queue.put(of("a"))
    assert queue.fill("a") == 2 / 5
    assert queue.fill("b") == pytest.approx(2 / 10 * 2 / 3)
    queue.put(of("b", size=30_000 - SHARE_BYTES))
    assert queue.fill("b") == 30_000 / (0.5 * (100_000 - 2 * (10 + SHARE_BYTES)))
    assert queue.fill("c") == pytest.approx((30_000 + 2 * (10 + SHARE_BYTES)) / 100_000 * 2 / 3)
    queue.put(of("", size=20_000 - SHARE_BYTES))
    assert queue.fill("") == pytest.approx((50_000 + 2 * (10 + SHARE_BYTES)) / 100_000 * 2 / 3)
    for _ in range(6):
        queue.put(of(""))
    assert queue.fill("") == 0.7


def test_senders_without_a_tenant_may_fill_all_of_it():
    queue = a_queue(queue_size=4, max_tenant_share=0.25)
    for _ in range(4):
        queue.put(of(""))
    assert queue.fill("") == 1.0
    with pytest.raises(Overloaded) as refused:
        queue.put(of(""))
    assert refused.value.reason == "queue_full"


@pytest.mark.parametrize("limits", [{"queue_size": 4}, {"max_bytes": 4 * (10 + SHARE_BYTES)}])
def test_a_tenant_is_refused_beyond_its_share_of_units_and_of_bytes(limits):
    queue = a_queue(max_tenant_share=0.5, **limits)
    queue.put(of("a"))
    assert queue.refusal(of("a")) is None
    queue.put(of("a"))
    refusal = queue.refusal(of("a"))
    assert (refusal.reason, refusal.tenant) == ("tenant_queue_full", "a")
    assert queue.refusal(of("b")) is None
    assert queue.refusal(of("a")).capacity is refusal.capacity, "one share for each tenant"
    queue.admit()


def test_a_tenant_with_nothing_in_the_queue_may_put_one_batch_beyond_its_share():
    queue = a_queue(queue_size=20, sizer="items", max_tenant_share=0.3)
    queue.put(of("a", items=7))
    assert queue.refusal(of("a")).reason == "tenant_queue_full"
    queue.put(of("b", items=1))
    assert queue.refusal(of("b", items=3)).reason == "tenant_queue_full"
    queue.put(of("b", items=2))


def test_a_queue_that_is_not_enabled_has_no_shares():
    queue = a_queue(enabled=False, num_consumers=2, max_tenant_share=0.5)
    queue.put(of("a"))
    queue.put(of("a"))
    assert queue.refusal(of("a")).reason == "queue_full"


@pytest.mark.parametrize("released", ["a", "b"])
async def test_who_waits_for_the_share_of_a_tenant_is_served_when_anything_is_released(released):
    queue = a_queue(queue_size=5, max_tenant_share=0.5)
    for tenant in ("a", "a", "b"):
        queue.put(of(tenant))
    served = []
    offer = Offer(lambda: served.append("a"))
    offer.wait(queue.refusal(of("a")))
    entries = {entry.batch.origin.tenant: entry for entry in [taken(queue) for _ in range(3)]}
    await asyncio.sleep(0)
    assert served == []
    queue.release(entries[released])
    await asyncio.sleep(0)
    assert served == ["a"]


def a_refused_share(queue: SendingQueue) -> Capacity:
    refusal = queue.refusal(of("a"))
    assert refusal is not None
    assert refusal.reason == "tenant_queue_full"
    return refusal.capacity


def test_the_share_of_a_tenant_reports_progress_and_is_forgotten_then():
    queue = SendingQueue(Queue(queue_size=4, max_tenant_share=0.5), "otlp_http/x", clock=lambda: 7.0)
    for _ in range(2):
        queue.put(of("a"))
    share = a_refused_share(queue)
    assert share.owner == "otlp_http/x"
    queue.release(taken(queue))
    assert (share.freed_at, share.short) == (7.0, False)
    queue.put(of("a"))
    assert a_refused_share(queue) is not share


def test_the_share_of_a_tenant_is_kept_as_long_as_anybody_watches_it():
    queue = a_queue(queue_size=4, max_tenant_share=0.5)
    for _ in range(2):
        queue.put(of("a"))
    share = a_refused_share(queue)
    share.observers.append(lambda: None)
    queue.freed("a")
    assert not share.short
    assert a_refused_share(queue) is share
    share.observers.clear()
    queue.freed("a")
    assert a_refused_share(queue) is not share


def test_in_a_queue_that_is_not_enabled_a_tenant_may_fill_everything():
    queue = a_queue(enabled=False, num_consumers=2, max_tenant_share=0.5)
    queue.put(of("a"))
    assert queue.fill("a") == 0.5


def test_a_release_frees_what_the_batch_took_of_its_tenants_share():
    queue = a_queue(queue_size=10, max_tenant_share=0.5)
    for size in (10, 20, 30):
        queue.put(of("a", size=size))
    entry = taken(queue)
    queue.release(entry)
    assert (entry.tenant_queue.size, entry.tenant_queue.bytes) == (2, 20 + 30 + 2 * SHARE_BYTES)
    assert queue.fill("a") == 2 / 5


def admitted(tenant: str, *, size: int = 10) -> Batch:
    """Return a batch that a fan-out has admitted, so the queue accepts it above its limits."""
    batch = of(tenant, size=size)
    batch.admitted = True
    return batch


@pytest.mark.parametrize(("limits", "number"), [({"queue_size": 4}, 4), ({"max_bytes": 40}, 4)])
def test_a_queue_that_others_have_filled_is_full_for_a_tenant(limits, number):
    queue = SendingQueue(Queue(max_tenant_share=0.5, **limits), "otlp_http/x", 0)
    for _ in range(number):
        queue.put(of(""))
    queue.put(admitted("a"))
    assert queue.fill("a") == 1.0
    queue.put(admitted("a"))
    assert queue.fill("a") == 1.0, "never more than full"


def test_how_full_it_is_for_a_tenant_whose_batches_have_no_body():
    queue = a_queue(sizer="bytes", queue_size=1000, max_bytes=1000, max_tenant_share=0.5)
    queue.put(of("a", size=0))
    assert queue.fill("a") == SHARE_BYTES / 500


def test_how_full_it_is_for_a_tenant_that_may_use_one_unit_or_byte_and_uses_none():
    queue = a_queue(sizer="bytes", queue_size=1000, max_bytes=100_000, max_tenant_share=0.5)
    queue.put(of("a", size=0))
    queue.put(of("", size=998))
    assert queue.fill("a") == pytest.approx(998 / 1000 * 2 / 3)
    queue = SendingQueue(Queue(max_bytes=1000, max_tenant_share=0.5), "otlp_http/x", 0)
    queue.put(of("a", size=0))
    queue.put(of("", size=998))
    assert queue.fill("a") == pytest.approx(998 / 1000 * 2 / 3)


@pytest.mark.parametrize(("share", "sends"), [(0.5, 3), (1, 4)])
def test_tenants_that_share_the_queue_share_the_sends(share, sends):
    queue, concurrency = a_queue(max_tenant_share=share), Concurrency(1, 4)
    queue.limit_sends(concurrency)
    for _ in range(5):
        queue.put(of("a"))
    begun = []
    while len(begun) < 4 and queue.may_send():
        begun.append(taken(queue))
        concurrency.sending += 1
    assert len(begun) == sends
    assert bool(queue.resting) is (share < 1)
    concurrency.sending -= 1
    queue.release(begun[0])
    queue.finished(begun[0])
    assert queue.may_send()
    assert not queue.resting


async def test_tenants_that_wait_for_their_shares_are_served_in_turn():
    """Each release serves another one, and is no progress for it: the batch was not of that tenant."""
    queue = a_queue(queue_size=10, max_tenant_share=0.2)
    served, shares = [], {}
    for tenant in ("a", "a", "b", "", "", ""):
        queue.put(of(tenant))
    for tenant in ("a", "b"):
        refusal = queue.refusal(of(tenant))
        shares[tenant] = refusal.capacity
        Offer(lambda tenant=tenant: served.append(tenant)).wait(refusal)
    others = [entry for entry in (taken(queue) for _ in range(len(queue))) if not entry.batch.origin.tenant]
    for expected in (["a"], ["a", "b"]):
        queue.release(others.pop())
        await asyncio.sleep(0)
        assert served == expected
    assert [share.freed_at for share in shares.values()] == [float("-inf")] * 2


def test_every_release_is_reported_as_long_as_somebody_watches():
    queue, heard = a_queue(queue_size=2), []
    queue.space.observers.append(lambda: heard.append(len(queue)))
    for _ in range(2):
        queue.put(a_batch())
    queue.refusal(a_batch())
    for _ in range(2):
        queue.release(taken(queue))
    assert heard == [1, 0]
