import asyncio
import time

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.errors import InternalError, MalformedError, Overloaded, PermanentError, RetryableError
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.entry import (
    CONNECTOR_PATIENCE,
    RECEIVER_PATIENCE,
    ConnectorEntry,
    PipelineHead,
    ReceiverEntry,
)
from otelwp_agent.telemetry.metrics import Registry
from tests.kit.branches import Queue
from tests.kit.entries import Stage, a_batch, entry_of, head
from tests.kit.graphs import until


def test_the_ledger_balances_at_every_step():
    pipeline = head()
    for number in range(3):
        pipeline.consume(a_batch())
        (ledger,) = pipeline.ledgers.values()
        assert (ledger.accepted, ledger.in_flight) == (2 * number + 2, 2 * number + 2)
    pipeline.first.error = Overloaded("full")
    refused = a_batch()
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
    entry.consume(a_batch())
    entry.consume(a_batch(5, "grpc"))
    pipeline.first.error = Overloaded("full")
    with pytest.raises(Overloaded):
        entry.consume(a_batch(7))
    text = registry.expose()
    assert 'otelcol_receiver_accepted_spans{receiver="otlp",transport="http"} 2\n' in text
    assert 'otelcol_receiver_accepted_spans{receiver="otlp",transport="grpc"} 5\n' in text
    assert 'otelcol_receiver_refused_spans{receiver="otlp",transport="http"} 7\n' in text


def test_two_pipelines_keep_ledgers_of_their_own():
    heads = [head("traces/a"), head("traces/b")]
    entry = entry_of(heads)
    one = a_batch()
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
        entry.consume(a_batch())
    assert [each.first.taken for each in heads] == [[], []], "no pipeline has got it"
    assert [each.total.accepted for each in heads] == [0, 0]
    heads[1].first.error = None
    entry.consume(a_batch())
    assert [len(each.first.taken) for each in heads] == [1, 1]
    heads[0].first.error = Overloaded("memory")
    with pytest.raises(Overloaded):
        entry_of(heads[:1]).admit()


async def test_a_pipeline_that_is_isolated_refuses_nobody():
    time_of = asyncio.get_running_loop().time
    heads = [head("traces/a"), head("traces/b")]
    heads[1].first = Queue(clock=time_of, isolate_after=0.01)
    heads[1].first.is_full = True
    heads[1].admits = [lambda: heads[1].first.consume(a_batch())]
    entry = ReceiverEntry(heads, "otlp", Signal.TRACES, Registry(), clock=time_of, log=structlog.get_logger())
    with pytest.raises(Overloaded):
        entry.admit()
    await until(lambda: heads[1].first.capacity.isolated)
    entry.admit()
    one = a_batch()
    entry.consume(one)
    assert [(each.total.accepted, each.total.in_flight) for each in heads] == [(2, 2), (2, 0)]
    assert heads[1].total.dropped_reasons == {"queue_full": 2}, "its ledger has what it lost"
    assert (one.shares[0][0].pending, heads[1].first.lost) == (2, 2)
    entry.close()
    assert heads[1].first.capacity.isolated == 0


def test_through_a_connector_each_pipeline_settles_for_itself():
    before, after = head("traces"), head("traces/after")
    before.consume(a_batch())
    connector = ConnectorEntry([after], clock=time.monotonic, log=structlog.get_logger())
    connector.admit()
    connector.consume(before.first.taken[0])
    assert [each.total.in_flight for each in (before, after)] == [2, 2]
    after.first.taken[0].settle(Outcome.DELIVERED)
    assert [each.total.settled[Outcome.DELIVERED] for each in (before, after)] == [2, 2]


def test_a_new_pipeline_asks_nobody_and_has_accepted_nothing():
    pipeline = PipelineHead("traces", Ledgers())
    assert (pipeline.admits, pipeline.fills) == ((), {})
    pipeline.admit()
    assert (pipeline.total.key, pipeline.total.accepted) == (("traces", "", ""), 0)


def test_each_receiver_and_tenant_has_an_account_and_the_total_is_their_sum():
    ledgers = Ledgers()
    pipeline = PipelineHead("traces", ledgers)
    pipeline.first = Stage()
    for items, receiver, tenant in ((1, "otlp", "a"), (2, "otlp", "b"), (4, "zipkin", "a"), (8, "otlp", "a")):
        pipeline.consume(a_batch(items, receiver=receiver, tenant=tenant))
    assert {key: ledger.accepted for key, ledger in pipeline.ledgers.items()} == {
        ("otlp", "a"): 9,
        ("otlp", "b"): 2,
        ("zipkin", "a"): 4,
    }
    assert pipeline.ledgers["otlp", "b"].key == ("traces", "otlp", "b")
    assert pipeline.ledgers["otlp", "a"] is ledgers.get("traces", "otlp", "a")
    first, second, third, fourth = pipeline.first.taken
    first.settle(Outcome.DROPPED, "queue_full")
    second.settle(Outcome.DROPPED, "timeout")
    third.settle(Outcome.DROPPED, "queue_full")
    fourth.settle(Outcome.FILTERED)
    total = pipeline.total
    assert (total.accepted, total.settled, total.in_flight) == (15, [0, 0, 8, 7], 0)
    assert total.dropped_reasons == {"queue_full": 5, "timeout": 2}


def test_a_refused_batch_leaves_no_trace_in_the_account():
    pipeline = head()
    pipeline.consume(a_batch(5))
    pipeline.first.error = MalformedError("no")
    refused = a_batch(3)
    with pytest.raises(MalformedError):
        pipeline.consume(refused)
    assert refused.shares[0][0].ledger is None
    assert pipeline.total.accepted == 5


def test_a_bug_in_a_component_is_an_internal_error_and_nothing_is_accepted():
    pipeline = head()
    pipeline.first.error = ZeroDivisionError("division by zero")
    one = a_batch()
    with capture_logs() as logs, pytest.raises(InternalError, match="the agent's log has the details") as raised:
        pipeline.consume(one)
    assert raised.value.__cause__ is pipeline.first.error
    assert [(line["event"], line["log_level"], line["pipeline"]) for line in logs] == [
        ("component failed: a bug in the component", "error", "traces")
    ]
    assert (pipeline.total.accepted, one.shares[0][0].ledger) == (0, None)
    pipeline.first.error = ZeroDivisionError("division by zero")
    with capture_logs() as logs, pytest.raises(InternalError) as raised:
        pipeline.admit()
    assert raised.value.__cause__ is pipeline.first.error
    assert [line["pipeline"] for line in logs] == ["traces"]


def test_a_single_pipeline_gets_the_batch_itself_and_not_a_fork():
    pipeline, one = head(), a_batch()
    entry_of([pipeline]).consume(one)
    assert pipeline.first.taken == [one]
    assert pipeline.first.taken[0].shares[0][0] is one.shares[0][0]


def test_a_cancelled_task_is_no_bug():
    pipeline = head()
    pipeline.first.error = asyncio.CancelledError()
    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        pipeline.consume(a_batch())
    assert (pipeline.total.accepted, logs) == (0, [])


def test_a_pipeline_says_why_it_would_refuse():
    pipeline = head()
    assert pipeline.refusal(a_batch()) is None
    pipeline.first.error = Overloaded("full")
    assert pipeline.refusal(a_batch()) is pipeline.first.error
    assert entry_of([pipeline]).refusal(a_batch()) is pipeline.first.error
    assert entry_of([head("traces/a"), pipeline]).refusal(a_batch()) is pipeline.first.error


def entry_that_waits(heads):
    log = structlog.get_logger()
    return ReceiverEntry(
        heads, "otlp", Signal.TRACES, Registry(), clock=time.monotonic, log=log, acknowledge="delivered"
    )


async def test_a_sender_that_wants_to_know_is_answered_when_everything_is_settled():
    heads = [head("traces/a"), head("traces/b")]
    entry = entry_that_waits(heads)
    assert entry.answers_late
    answer = entry.consume(a_batch(), "yes")
    heads[0].first.taken[0].settle(Outcome.DELIVERED)
    assert not answer.done()
    heads[1].first.taken[0].settle(Outcome.FILTERED)
    assert await answer == "yes"


async def test_a_sender_that_wants_to_know_is_told_what_was_lost():
    pipeline = head()
    entry = entry_that_waits([pipeline])
    answer = entry.consume(a_batch(), "yes", lambda items, why: f"{items} lost: {why}")
    pipeline.first.taken[0].shares[0][0].settle(Outcome.DELIVERED, 1)
    pipeline.first.taken[0].shares[0][0].settle(Outcome.DROPPED, 1, "malformed")
    assert await answer == "1 lost: 1 of 2 items were dropped (malformed)"
    answer = entry.consume(a_batch(), "yes")
    pipeline.first.taken[1].settle(Outcome.DROPPED, "malformed")
    with pytest.raises(PermanentError, match="2 of 2 items were dropped"):
        await answer


async def test_a_sender_that_wants_to_know_is_answered_at_the_latest_after_half_a_minute(monkeypatch):
    monkeypatch.setattr("otelwp_agent.pipeline.acknowledge.PATIENCE", 0.01)
    answer = entry_that_waits([head()]).consume(a_batch(), "yes")
    with pytest.raises(RetryableError, match="it may still be delivered"):
        async with asyncio.timeout(60):
            await answer


async def test_what_is_settled_at_once_is_answered_at_once_and_leaves_no_timer(monkeypatch):
    monkeypatch.setattr("otelwp_agent.pipeline.acknowledge.Answer.expect", lambda _: pytest.fail("it waits"))
    pipeline = head()
    pipeline.first.consume = lambda one: one.settle(Outcome.SAMPLED_OUT)
    assert entry_that_waits([pipeline]).consume(a_batch(), "yes").result() == "yes"


def test_other_senders_are_answered_at_once():
    entry = entry_of([head()])
    assert not entry.answers_late
    assert entry.consume(a_batch(), "yes") is None
    assert not ConnectorEntry([head()], clock=time.monotonic, log=structlog.get_logger()).answers_late


def test_a_refusal_names_the_number_of_items_and_counts_them_by_receiver():
    registry, pipeline = Registry(), head()
    entry = entry_of([pipeline], registry)
    error = pipeline.first.error = Overloaded("full")
    for items in (7, 5):
        with pytest.raises(Overloaded):
            entry.consume(a_batch(items))
        assert error.items == items
    pipeline.first.error = None
    entry.consume(a_batch(2))
    entry.consume(a_batch(3))
    labels = {"receiver": "otlp", "transport": "http"}
    assert registry.value("otelcol_receiver_refused_spans", **labels) == 12
    assert registry.value("otelcol_receiver_accepted_spans", **labels) == 5


@pytest.mark.parametrize("through", ["receiver", "connector"])
async def test_a_pipeline_is_isolated_later_than_by_a_fan_out_nearer_to_the_exporter(through):
    now = [100.0]
    heads = [head("traces/a"), head("traces/b")]
    heads[1].first = Queue(clock=lambda: now[0], isolate_after=10.0)
    heads[1].first.is_full = True
    log = structlog.get_logger()
    if through == "receiver":
        entry = ReceiverEntry(heads, "otlp", Signal.TRACES, Registry(), clock=lambda: now[0], log=log)
        pipelines, patience = entry.first, RECEIVER_PATIENCE
    else:
        entry = pipelines = ConnectorEntry(heads, clock=lambda: now[0], log=log)
        patience = CONNECTOR_PATIENCE
    with capture_logs() as logs:
        with pytest.raises(Overloaded):
            entry.consume(a_batch())
        (stall,) = pipelines._branches[1].stalls.values()
        assert (stall.since, stall.limit) == (100.0, 10.0 * patience)
        now[0] += 10.0 * patience
        pipelines._isolation._look(pipelines._branches[1], stall)
        entry.consume(a_batch())
    assert [(line["event"], line["branch"]) for line in logs] == [("exporter isolated", "traces/b")]
    assert 1 < CONNECTOR_PATIENCE < RECEIVER_PATIENCE
    entry.close()
    assert heads[1].first.capacity.isolated == 0


def test_what_pipelines_lose_is_reported_with_the_pipelines_name():
    heads = [head("traces/a"), head("traces/b")]
    for entry in (entry_of(heads), ConnectorEntry(heads, clock=time.monotonic, log=structlog.get_logger())):
        heads[1].first.consume = Stage().consume
        heads[1].first.consume.__self__.error = MalformedError("no")
        with capture_logs() as logs:
            entry.consume(a_batch(), "yes", print)
        assert [(line["event"], line["branch"], line["items"]) for line in logs] == [("items dropped", "traces/b", 2)]
    assert heads[1].total.settled[Outcome.DROPPED] == 4
    assert (heads[0].total.accepted, heads[1].total.accepted) == (4, 4)


def test_closing_the_entry_of_one_pipeline_closes_nothing():
    entry_of([head()]).close()


def test_a_pipeline_is_asked_about_the_batch():
    pipeline, one, asked = head(), a_batch(), []
    pipeline.first.refusal = asked.append
    pipeline.refusal(one)
    entry_of([pipeline]).refusal(one)
    assert asked == [one, one]


# --- the allowance of a sender ---


@pytest.mark.parametrize(("cause", "reported"), [("", RetryableError), ("other", RetryableError), ("shop", Overloaded)])
def test_a_sender_is_told_to_send_less_only_if_its_own_tenant_is_the_cause(cause, reported):
    pipeline = head()
    pipeline.first.error = Overloaded("full", reason="queue_full", retry_after=3.0, tenant=cause)
    with pytest.raises(RetryableError, match="full") as refused:
        entry_of([pipeline]).consume(a_batch(items=5, tenant="shop"))
    error = refused.value
    assert (type(error), error.reason, error.retry_after, error.items) == (reported, "queue_full", 3.0, 5)


def test_the_journal_decides_whether_anything_is_accepted_instead_of_the_pipelines():
    pipeline, asked = head(), []
    pipeline.first.error = Overloaded("full")
    entry_of([pipeline], admit=lambda: asked.append("journal")).admit()
    assert asked == ["journal"]
    with pytest.raises(Overloaded):
        entry_of([pipeline]).admit()


class TestTransfer:
    """A batch that one pipeline of a connector has accepted moves to another one."""

    def entries(self):
        heads = [head("traces/a"), head("traces/b")]
        log = structlog.get_logger()
        return heads, [ConnectorEntry([one], clock=time.monotonic, log=log) for one in heads]

    def sums(self, heads):
        return [(one.total.accepted, one.total.in_flight, one.total.settled[0]) for one in heads]

    def test_its_receipts_change_to_the_ledger_of_the_other_any_number_of_times(self):
        heads, entries = self.entries()
        batch = a_batch()
        entries[0].consume(batch)
        held = heads[0].first.taken.pop()
        for number in range(1, 1001):
            entries[number % 2].transfer(held)
            held = heads[number % 2].first.taken.pop()
        assert self.sums(heads) == [(2, 2, 0), (0, 0, 0)]
        held.settle(Outcome.DELIVERED)
        assert self.sums(heads) == [(2, 0, 2), (0, 0, 0)]
        assert batch.shares[0][0].pending == 0

    def test_a_part_moves_and_the_other_part_stays(self):
        heads, entries = self.entries()
        entries[0].consume(a_batch(3))
        held = heads[0].first.taken.pop()
        (receipt, _), *_ = held.shares
        entries[1].transfer(held.with_body(held.body, 1, [(receipt, 1)]))
        receipt.settle(Outcome.DELIVERED, 2)
        assert self.sums(heads) == [(3, 1, 2), (1, 1, 0)]
        heads[1].first.taken.pop().settle(Outcome.DELIVERED)
        assert self.sums(heads) == [(3, 0, 3), (1, 0, 1)]

    def test_if_the_other_refuses_nothing_has_changed(self):
        heads, entries = self.entries()
        entries[0].consume(a_batch())
        held = heads[0].first.taken.pop()
        heads[1].first.error = Overloaded("full")
        with pytest.raises(Overloaded):
            entries[1].transfer(held)
        assert self.sums(heads) == [(2, 2, 0), (0, 0, 0)]
        held.settle(Outcome.DELIVERED)
        assert self.sums(heads) == [(2, 0, 2), (0, 0, 0)]
