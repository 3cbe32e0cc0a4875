from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.pipeline.entry import PipelineHead
from otelwp_agent.pipeline.ledgers import Ledgers
from otelwp_agent.service.ledger_metrics import bind_ledgers
from otelwp_agent.telemetry.metrics import Registry


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

    assert registry.value("otelwp_pipeline_accepted_items", pipeline="traces") == 10
    assert registry.value("otelwp_pipeline_in_flight_items", pipeline="traces") == 2
    settled = {
        outcome.label: registry.value("otelwp_pipeline_settled_items", outcome=outcome.label) for outcome in Outcome
    }
    assert settled == {"delivered": 4, "sampled_out": 3, "filtered": 0, "dropped": 1}


def test_a_pipeline_that_stays_over_a_reload_is_bound_once():
    registry = Registry()
    ledgers = Ledgers()
    head = PipelineHead("traces", ledgers)
    bind_ledgers(registry, {"traces": head})
    ledgers.get("traces", "otlp", "one").accepted += 2
    ledgers.get("traces", "otlp", "two").accepted += 3
    bind_ledgers(registry, {"traces": head, "logs": PipelineHead("logs", ledgers)})
    assert registry.value("otelwp_pipeline_accepted_items") == 5
