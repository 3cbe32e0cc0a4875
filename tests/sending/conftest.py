from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from otelwp_agent.testing import FakeTimeLoop
from tests.kit.senders import Destination, a_sender

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.receipt import Receipt


@pytest.fixture
def loop():
    loop = FakeTimeLoop()
    yield loop
    loop.close()


@pytest.fixture
def deliver(loop):
    """Send batches, wait until all is settled, and return the exporter."""

    def deliver(answer: Callable[[list[str]], Awaitable[int]], *batches: Batch, **options) -> Destination:
        limit = options.pop("max_request_bytes", None)
        exporter = Destination(answer, loop.time)
        exporter.max_request_bytes = limit
        sender = a_sender(exporter, **options)

        async def scenario() -> None:
            await sender.start()
            for batch in batches:
                sender.consume(batch)
            settled = asyncio.Event()
            receipts = [receipt for batch in batches for receipt, _ in batch.shares]
            open_receipts = {receipt for receipt in receipts if receipt.on_settled is None}

            def one_settled(receipt: Receipt) -> None:
                open_receipts.discard(receipt)
                if not open_receipts:
                    settled.set()

            for receipt in tuple(open_receipts):
                receipt.on_settled = one_settled
            await settled.wait()
            await sender.shutdown()

        loop.run_until_complete(scenario())
        assert sender._queue.size == sender._queue.bytes == len(sender._queue) == 0
        return exporter

    return deliver


@pytest.fixture
def log():
    with capture_logs() as lines:
        yield lines
