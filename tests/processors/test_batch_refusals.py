"""Batches that the next stage refuses: what is kept, who waits, and when it is offered again."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from otelwp_agent.capacity import Capacity, Offer
from otelwp_agent.errors import Overloaded, PermanentError, RetryableError
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.testing import run
from tests.kit.stages import batch_of, build, names_of, numbered_spans


def test_a_refused_batch_is_kept_and_senders_are_refused_when_one_more_is_full():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 5, "timeout": "1s"})
        catcher.error = Overloaded("full")
        stage.consume(numbered_spans(5))
        stage.admit()
        stage.consume(numbered_spans(4, 5))
        stage.admit()
        stage.consume(numbered_spans(3, 9))
        for _ in range(2):
            with pytest.raises(Overloaded) as caught:
                stage.admit()
            assert caught.value.retry_after
            refused = numbered_spans(1, 99)
            with pytest.raises(Overloaded):
                stage.consume(refused)
            assert refused.shares[0][0].pending == 1
        await asyncio.sleep(10)
        catcher.error = None
        await asyncio.sleep(0.06)
        assert [batch.items for batch in catcher.batches] == [5, 7]
        assert names_of(catcher.batches) == [str(number) for number in range(12)]
        stage.admit()
        stage.consume(numbered_spans(1))
        await asyncio.sleep(1.01)
        assert catcher.items == 13

    run(scenario())


class Backend:
    """A next stage with capacity that is reported, for everybody or for one tenant."""

    def __init__(self):
        now = asyncio.get_running_loop().time
        self.capacity = Capacity("exporters/x", now, isolate_after=5.0)
        self.share = Capacity("exporters/x", now, share="loud", cause=self.capacity)
        self.full, self.full_for = False, ""
        self.batches = []

    def refusal(self, batch):
        if batch.origin.tenant == self.full_for != "":
            self.share.refuse()
            return Overloaded("share", capacity=self.share)
        if self.full:
            self.capacity.refuse()
            return Overloaded("full", capacity=self.capacity)
        return None

    def consume(self, batch):
        refusal = self.refusal(batch)
        if refusal is not None:
            raise refusal
        self.batches.append(batch)

    def free(self):
        self.full, self.full_for = False, ""
        self.capacity.freed()
        self.share.freed()


def behind(settings):
    stage, _ = build("batch", settings)
    stage.next = Backend()
    return stage, stage.next


def test_a_refused_batch_is_offered_only_when_the_next_stage_reports_capacity():
    async def scenario():
        stage, backend = behind({"send_batch_size": 5})
        backend.full = True
        stage.consume(numbered_spans(5))
        await asyncio.sleep(100)
        assert stage.context.registry.value("otelwp_processor_batch_next_refused") == 1, "nobody has asked again"
        backend.free()
        await asyncio.sleep(0)
        assert names_of(backend.batches) == ["0", "1", "2", "3", "4"]

    run(scenario())


def test_refused_senders_are_called_when_there_is_capacity_again():
    async def scenario():
        stage, backend = behind({"send_batch_size": 5})
        backend.full = True
        for start in (0, 5):
            stage.consume(numbered_spans(5, start))
        refused = stage.refusal(numbered_spans(1))
        assert refused.capacity.root is backend.capacity, "an exporter's queue is the cause"
        called = []
        offer = Offer(lambda: called.append(stage.refusal(numbered_spans(1))))
        offer.wait(refused)
        await asyncio.sleep(10)
        assert called == []
        backend.free()
        await asyncio.sleep(0.01)
        assert called == [None]

    run(scenario())


def test_an_admitted_batch_is_accepted_above_the_limit():
    async def scenario():
        stage, backend = behind({"send_batch_size": 5})
        backend.full = True
        for start in (0, 5):
            stage.consume(numbered_spans(5, start))
        with pytest.raises(Overloaded):
            stage.consume(numbered_spans(1, 10))
        admitted = numbered_spans(1, 10)
        admitted.admitted = True
        stage.consume(admitted)
        backend.free()
        await asyncio.sleep(0.01)
        assert len(names_of(backend.batches)) == 11
        assert not any(batch.admitted for batch in backend.batches), "what is merged is offered like anything else"

    run(scenario())


def test_a_tenant_with_a_full_share_does_not_block_other_tenants():
    async def scenario():
        stage, backend = behind({"send_batch_size": 1})
        backend.full_for = "loud"

        def one(tenant):
            return batch_of(b"", 1, origin=Origin(tenant=tenant))

        for _ in range(2):
            stage.consume(one("loud"))
        assert stage.refusal(one("loud")).capacity.share == "loud"
        stage.admit()
        stage.consume(one("quiet"))
        assert [batch.origin.tenant for batch in backend.batches] == ["quiet"]
        backend.free()
        await asyncio.sleep(0.01)
        assert len(backend.batches) == 3

    run(scenario())


def test_early_refusals_do_not_depend_on_the_number_of_groups():
    """The time of `admit` must not grow with the number of tenants."""

    async def scenario():
        stage, backend = behind({"send_batch_size": 1})
        backend.full = True
        for number in range(1000):
            for _ in range(2):
                stage.consume(batch_of(b"", 1, origin=Origin(tenant=str(number))))

        class Unseen(dict):
            def values(self):
                raise AssertionError("it looks at every group")

            __iter__ = items = keys = values

        stage._groups = Unseen(stage._groups)
        with pytest.raises(Overloaded):
            stage.admit()
        stage._groups = dict(dict.items(stage._groups))
        backend.free()
        await asyncio.sleep(0.01)
        assert len(backend.batches) == 2000
        stage.admit()
        assert (stage._blocked, stage._full, stage._held) == (0, 0, 0)

    run(scenario())


def test_offers_to_the_next_stage_slow_down():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 1})
        catcher.error = RetryableError("not now")
        stage.consume(numbered_spans(1))
        await asyncio.sleep(1)
        offers = stage.context.registry.value("otelwp_processor_batch_next_refused")
        assert 15 <= offers <= 25

    run(scenario())


def test_a_permanently_refused_batch_is_dropped_with_the_reason_and_others_continue():
    async def scenario():
        stage, catcher = build("batch", {"send_batch_size": 4, "send_batch_max_size": 4})
        catcher.errors = [PermanentError("no", reason="nonsense")]
        batch = numbered_spans(8)
        with capture_logs() as logs:
            stage.consume(batch)
        (receipt,) = [receipt for receipt, _ in batch.shares]
        assert receipt.count(Outcome.DROPPED) == 4
        assert receipt.reason == "nonsense"
        assert catcher.items == 4
        assert [(log["log_level"], log["reason"], log["items"]) for log in logs] == [("error", "nonsense", 4)]

    run(scenario())
