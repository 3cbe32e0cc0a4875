"""Five destinations that fail at random for ten minutes of simulated time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from otelwp_agent.errors import ForbiddenError, Overloaded, RetryableError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing.fake_time import FakeTimeLoop
from tests.kit.graphs import Running
from tests.kit.senders import a_request, names_in

NAMES = ("a", "b", "c", "d", "e")
GRAPH = f"""
receivers: {{hand: }}
processors: {{batch: {{timeout: 300ms, send_batch_size: 5}}}}
exporters:
{"".join(f"  sink/{name}: {{sending_queue: {{queue_size: 30, num_consumers: 3}}}}{chr(10)}" for name in NAMES)}
connectors:
  failover:
    priority_levels: [{", ".join(f"[traces/{name}]" for name in NAMES)}]
    retry_interval: 5s
    return_time: 10s
service:
  pipelines:
    traces: {{receivers: [hand], exporters: [failover]}}
{
    "".join(
        f"    traces/{name}: {{receivers: [failover], processors: [{'batch' if name == 'c' else ''}], "
        f"exporters: [sink/{name}]}}{chr(10)}"
        for name in NAMES
    )
}
"""
MINUTES = 10


async def disturb(sink, chance):
    """Change at random how a destination answers."""
    while True:
        await asyncio.sleep(chance.uniform(1, 40))
        kind = chance.choice(["works", "works", "fails", "hangs", "forbids", "throttles"])
        errors = {
            "fails": RetryableError("away"),
            "forbids": ForbiddenError("403"),
            "throttles": Overloaded("429", retry_after=chance.uniform(0, 20)),
        }
        sink.error = errors.get(kind)
        (sink.gate.clear if kind == "hangs" else sink.gate.set)()


@pytest.mark.parametrize("seed", range(3))
def test_every_accepted_item_is_delivered_to_exactly_one_destination(seed):
    loop, chance = FakeTimeLoop(), random.Random(seed)
    running = Running(loop.time)
    accepted = []
    refused = 0

    async def scenario():
        nonlocal refused
        await running.go(GRAPH)
        sinks = [getattr(running, f"sink_{name}") for name in NAMES]
        disturbers = [loop.create_task(disturb(sink, chance)) for sink in sinks]
        while loop.time() < MINUTES * 60:
            number = len(accepted) + refused
            batch = a_request(*(f"{number}.{item}" for item in range(chance.randint(1, 4))))
            try:
                running.hand.next[Signal.TRACES].consume(batch)
            except Overloaded:
                refused += 1
            else:
                accepted.append(batch)
            await asyncio.sleep(chance.expovariate(3))
        for disturber, sink in zip(disturbers, sinks, strict=True):
            disturber.cancel()
            sink.error = None
            sink.gate.set()
        await asyncio.sleep(120)
        assert all(receipt.pending == 0 for batch in accepted for receipt, _ in batch.shares)
        await running.stop()
        return Counter(name for sink in sinks for batch in sink.batches for name in names_in(batch))

    got = loop.run_until_complete(scenario())
    loop.close()
    assert len(accepted) > 1000
    lost = [batch.shares[0][0] for batch in accepted if batch.shares[0][0].count(Outcome.DELIVERED) != batch.items]
    assert not [receipt.reason for receipt in lost]
    assert got == Counter(name for batch in accepted for name in names_in(batch))
    assert running.registry.value("otelwp_destination_moved_items") > 100
    assert all(head.total.in_flight == 0 for head in running.graph.heads.values())
