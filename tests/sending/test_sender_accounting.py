"""The counts of a sender add up after any sequence of actions."""

from __future__ import annotations

import asyncio

import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.errors import MalformedError, Overloaded, PermanentError, RetryableError, TooLargeError
from otelwp_agent.model.batch import merge
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.testing import FakeTimeLoop
from tests.kit.senders import (
    Destination,
    a_request,
    a_sender,
    hang,
)

ANSWERS = st.sampled_from(
    [
        "ok",
        "ok",
        "partial",
        "retryable",
        "throttled",
        "permanent",
        "too_large",
        "malformed",
        "hang",
        "slow",
        "cancelled",
        "bug",
    ]
)


QUIET = structlog.wrap_logger(structlog.ReturnLogger(), wrapper_class=structlog.make_filtering_bound_logger("critical"))


class Accounting(RuleBasedStateMachine):
    """Whatever the destination does, whenever the sender stops: each item is settled once and the queue ends empty."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = FakeTimeLoop()
        self.answers: list[str] = []
        self.receipts: list[Receipt] = []
        self.settled: list[Receipt] = []
        self.taken = 0
        self.exporter = Destination(self.answer, self.loop.time, QUIET)
        self.exporter.max_request_bytes = 120
        self.sender = a_sender(
            self.exporter,
            Queue(num_consumers=2, queue_size=12, sizer="items"),
            Retry(max_elapsed_time="40s"),
        )
        self.loop.run_until_complete(self.sender.start())

    async def answer(self, names: list[str]) -> int:
        what = self.answers.pop(0) if self.answers else "ok"
        match what:
            case "partial":
                return 1
            case "hang":
                return await hang(names)
            case "slow":
                await asyncio.sleep(2)
            case "ok":
                pass
            case _:
                raise {
                    "retryable": RetryableError("busy"),
                    "throttled": Overloaded("busy", retry_after=11),
                    "permanent": PermanentError("no"),
                    "too_large": TooLargeError("413"),
                    "malformed": MalformedError("400"),
                    "cancelled": asyncio.CancelledError(),
                    "bug": ZeroDivisionError(),
                }[what]
        return 0

    @rule(
        shares=st.lists(st.integers(1, 4), min_size=1, max_size=5),
        answers=st.lists(ANSWERS, max_size=8),
        tenant=st.sampled_from(["", "a", "b"]),
    )
    def consume(self, shares, answers, tenant):
        self.answers += answers
        batch = merge([a_request(*[f"{n}"] * items, padding=8, tenant=tenant) for n, items in enumerate(shares)])
        receipts = [receipt for receipt, _ in batch.shares]
        for receipt in receipts:
            receipt.on_settled = self.settled.append
        try:
            self.sender.consume(batch)
        except Overloaded:
            assert all(receipt.pending == receipt.items for receipt in receipts)
        else:
            self.receipts += receipts
            self.taken += batch.items

    @rule(seconds=st.sampled_from([0, 0, 1, 4, 30]))
    def wait(self, seconds):
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @precondition(lambda self: self.receipts)
    @rule(seconds=st.sampled_from([0, 1, 100]))
    def drain(self, seconds):
        self.loop.run_until_complete(self.sender.drain(self.loop.time() + seconds))
        assert not any(receipt.pending for receipt in self.receipts)

    @invariant()
    def adds_up(self):
        pending = sum(receipt.pending for receipt in self.receipts)
        sent = self.exporter.metric("otelcol_exporter_sent_spans")
        failed = self.exporter.metric("otelcol_exporter_send_failed_spans")
        assert self.taken == sent + failed + pending
        assert sent == sum(receipt.count(Outcome.DELIVERED) for receipt in self.receipts)
        assert failed == self.exporter.metric("otelwp_exporter_dropped_items")
        queue = self.sender._queue
        assert queue.size == pending == sum(line.size for line in queue._tenants)
        assert queue.bytes == sum(line.bytes for line in queue._tenants)
        assert 1 <= self.sender._concurrency.limit <= 2

    def teardown(self):
        self.loop.run_until_complete(self.sender.drain(self.loop.time() + 1))
        self.adds_up()
        queue = self.sender._queue
        assert (queue.size, queue.bytes, len(queue), self.sender._metrics.in_flight) == (0, 0, 0, 0)
        assert sorted(map(id, self.settled)) == sorted(map(id, self.receipts))
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


TestAccounting = Accounting.TestCase


TestAccounting.settings = settings(max_examples=100, stateful_step_count=20)
