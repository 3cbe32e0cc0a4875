import pytest

from otelwp_agent.errors import MalformedError, PermanentError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.entry import PipelineHead
from otelwp_agent.service.ledger_metrics import bind_ledgers
from otelwp_agent.telemetry.metrics import Registry
from tests.kit.graphs import Running, until
from tests.kit.otlp import delimited


def test_the_sums_of_a_ledger_are_served():
    registry = Registry()
    ledgers = Ledgers()
    bind_ledgers(registry, {"traces": PipelineHead("traces", ledgers)})
    receipt = Receipt(10)
    receipt.ledger = ledgers.get("traces", "otlp", "one")
    receipt.ledger.accepted += 10
    receipt.settle(Outcome.DELIVERED, 4)
    receipt.settle(Outcome.SAMPLED_OUT, 3)
    receipt.settle(Outcome.DROPPED, 1, "queue_full")
    receipt.settle(Outcome.DROPPED, 2, "dead_letter:malformed")

    assert registry.value("otelwp_pipeline_accepted_items", pipeline="traces") == 10
    assert registry.value("otelwp_pipeline_in_flight_items", pipeline="traces") == 0
    settled = {
        label: registry.value("otelwp_pipeline_settled_items", outcome=label)
        for label in (*(outcome.label for outcome in Outcome), "dead_letter")
    }
    assert settled == {"delivered": 4, "sampled_out": 3, "filtered": 0, "dropped": 1, "dead_letter": 2}
    assert sum(settled.values()) == registry.value("otelwp_pipeline_settled_items") == 10


def test_a_pipeline_that_stays_over_a_reload_is_bound_once():
    registry = Registry()
    ledgers = Ledgers()
    head = PipelineHead("traces", ledgers)
    bind_ledgers(registry, {"traces": head})
    ledgers.get("traces", "otlp", "one").accepted += 2
    ledgers.get("traces", "otlp", "two").accepted += 3
    bind_ledgers(registry, {"traces": head, "logs": PipelineHead("logs", ledgers)})
    assert registry.value("otelwp_pipeline_accepted_items") == 5


async def outcome_of(processors, trace_id, refusal=None):
    """Send a span through a graph; return the figures of each outcome, and what was dropped by reason."""
    running = Running()
    graph = await running.go(f"""
    receivers: {{hand: }}
    processors: {processors}
    exporters: {{sink: }}
    service: {{pipelines: {{traces: {{receivers: [hand], processors: {list(processors)}, exporters: [sink]}}}}}}
    """)
    bind_ledgers(running.registry, graph.heads)
    if refusal is not None:

        async def refuse(_batch):
            raise refusal

        running.sink.export = refuse
    receipt = Receipt(1)
    body = delimited(1, delimited(2, delimited(2, delimited(1, trace_id))))
    running.hand.next[Signal.TRACES].consume(Batch(Signal.TRACES, body, 1, Origin("hand", "hand"), ((receipt, 1),)))
    value = running.registry.value
    await until(lambda: receipt.pending == 0)
    await running.stop()
    assert value("otelwp_pipeline_accepted_items", pipeline="traces") == 1
    assert value("otelwp_pipeline_in_flight_items", pipeline="traces") == 0
    settled = {
        outcome.label: value("otelwp_pipeline_settled_items", pipeline="traces", outcome=outcome.label)
        for outcome in Outcome
    }
    return {name: items for name, items in settled.items() if items}, graph.heads["traces"].total.dropped_reasons


@pytest.mark.parametrize(
    ("processors", "trace_id", "refusal", "moves", "reasons"),
    [
        ({}, b"\xff" * 16, None, "delivered", {}),
        ({"probabilistic_sampler": {"sampling_percentage": 0}}, b"\xff" * 16, None, "sampled_out", {}),
        ({"probabilistic_sampler": {"sampling_percentage": 100}}, b"", None, "filtered", {}),
        ({}, b"\xff" * 16, MalformedError("no"), "dropped", {"malformed": 1}),
        ({}, b"\xff" * 16, PermanentError("no", reason="unauthorized"), "dropped", {"unauthorized": 1}),
    ],
    ids=["delivered", "sampled out", "filtered", "dropped", "dropped for another reason"],
)
async def test_each_outcome_that_a_graph_makes_happen_moves_its_figure_alone(
    processors, trace_id, refusal, moves, reasons
):
    assert await outcome_of(processors, trace_id, refusal) == ({moves: 1}, reasons)
