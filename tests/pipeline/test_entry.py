import asyncio
import time

import pytest
import structlog

from otelwp_agent.errors import Overloaded
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.entry import ConnectorEntry, PipelineHead, ReceiverEntry
from otelwp_agent.telemetry.metrics import Registry
from tests.kit.branches import Queue
from tests.kit.graphs import until


class Stage:
    def __init__(self):
        self.error = None
        self.taken = []

    def consume(self, batch):
        if self.error is not None:
            raise self.error
        self.taken.append(batch)

    def admit(self):
        if self.error is not None:
            raise self.error

    def refusal(self, batch):
        return self.error


def head(name="traces"):
    made = PipelineHead(name, Ledgers())
    made.first = Stage()
    made.admits = [made.first.admit]
    return made


def entry_of(heads, registry=None):
    log = structlog.get_logger()
    return ReceiverEntry(heads, "otlp", Signal.TRACES, registry or Registry(), clock=time.monotonic, log=log)


def batch(items=2, transport="http"):
    receipt = Receipt(items)
    return Batch(Signal.TRACES, b"", items, Origin("otlp", transport), ((receipt, items),))


def test_the_ledger_balances_at_every_step():
    pipeline = head()
    for number in range(3):
        pipeline.consume(batch())
        (ledger,) = pipeline.ledgers.values()
        assert (ledger.accepted, ledger.in_flight) == (2 * number + 2, 2 * number + 2)
    pipeline.first.error = Overloaded("full")
    refused = batch()
    with pytest.raises(Overloaded):
        pipeline.consume(refused)
    assert (ledger.accepted, ledger.in_flight) == (6, 6)
    refused.settle(Outcome.DROPPED)
    assert ledger.settled == [0, 0, 0, 0], "a refused batch no longer belongs to the ledger"
    one, two, three = pipeline.first.taken
    one.settle(Outcome.DELIVERED)
    two.settle(Outcome.SAMPLED_OUT)
    three.settle(Outcome.DROPPED, "queue_full")
    assert (ledger.in_flight, ledger.settled, ledger.dropped_reasons) == (0, [2, 2, 0, 2], {"queue_full": 2})


def test_accepted_and_refused_are_counted_by_transport():
    registry, pipeline = Registry(), head()
    entry = entry_of([pipeline], registry)
    entry.consume(batch())
    entry.consume(batch(5, "grpc"))
    pipeline.first.error = Overloaded("full")
    with pytest.raises(Overloaded):
        entry.consume(batch(7))
    text = registry.expose()
    assert 'otelcol_receiver_accepted_spans{receiver="otlp",transport="http"} 2\n' in text
    assert 'otelcol_receiver_accepted_spans{receiver="otlp",transport="grpc"} 5\n' in text
    assert 'otelcol_receiver_refused_spans{receiver="otlp",transport="http"} 7\n' in text


def test_two_pipelines_keep_ledgers_of_their_own():
    heads = [head("traces/a"), head("traces/b")]
    entry = entry_of(heads)
    one = batch()
    entry.consume(one)
    heads[0].first.taken[0].settle(Outcome.DELIVERED)
    assert [each.total.in_flight for each in heads] == [0, 2]
    heads[1].first.taken[0].settle(Outcome.DROPPED, "x")
    assert [each.total.settled for each in heads] == [[2, 0, 0, 0], [0, 0, 0, 2]]
    assert one.shares[0][0].worst is Outcome.DROPPED


def test_a_request_is_refused_while_one_of_its_pipelines_would_refuse_it():
    heads = [head("traces/a"), head("traces/b")]
    entry = entry_of(heads)
    entry.admit()
    heads[1].first.error = Overloaded("memory")
    with pytest.raises(Overloaded, match="memory"):
        entry.admit()
    with pytest.raises(Overloaded, match="memory"):
        entry.consume(batch())
    assert [each.first.taken for each in heads] == [[], []], "no pipeline has got it"
    assert [each.total.accepted for each in heads] == [0, 0]
    heads[1].first.error = None
    entry.consume(batch())
    assert [len(each.first.taken) for each in heads] == [1, 1]
    heads[0].first.error = Overloaded("memory")
    with pytest.raises(Overloaded):
        entry_of(heads[:1]).admit()


async def test_a_pipeline_that_is_isolated_refuses_nobody():
    time_of = asyncio.get_running_loop().time
    heads = [head("traces/a"), head("traces/b")]
    heads[1].first = Queue(clock=time_of, isolate_after=0.01)
    heads[1].first.is_full = True
    heads[1].admits = [lambda: heads[1].first.consume(batch())]
    entry = ReceiverEntry(heads, "otlp", Signal.TRACES, Registry(), clock=time_of, log=structlog.get_logger())
    with pytest.raises(Overloaded):
        entry.admit()
    await until(lambda: heads[1].first.capacity.isolated)
    entry.admit()
    one = batch()
    entry.consume(one)
    assert [(each.total.accepted, each.total.in_flight) for each in heads] == [(2, 2), (2, 0)]
    assert heads[1].total.dropped_reasons == {"queue_full": 2}, "its ledger has what it lost"
    assert (one.shares[0][0].pending, heads[1].first.lost) == (2, 2)
    entry.close()
    assert heads[1].first.capacity.isolated == 0


def test_through_a_connector_each_pipeline_settles_for_itself():
    before, after = head("traces"), head("traces/after")
    before.consume(batch())
    connector = ConnectorEntry([after], clock=time.monotonic, log=structlog.get_logger())
    connector.admit()
    connector.consume(before.first.taken[0])
    assert [each.total.in_flight for each in (before, after)] == [2, 2]
    after.first.taken[0].settle(Outcome.DELIVERED)
    assert [each.total.settled[Outcome.DELIVERED] for each in (before, after)] == [2, 2]
