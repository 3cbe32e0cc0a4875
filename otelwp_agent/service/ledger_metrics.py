"""The ledgers of all pipelines as metrics: `accepted = delivered + sampled_out + filtered + dropped + in_flight`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from otelwp_agent.model.receipt import Ledger, Outcome
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.pipeline.entry import PipelineHead
    from otelwp_agent.telemetry.metrics import Registry

ACCEPTED = Instrument("otelwp_pipeline_accepted_items", "Items that entered the pipeline.", labels=("pipeline",))
SETTLED = Instrument(
    "otelwp_pipeline_settled_items",
    "Items whose outcome is known: delivered, sampled_out, filtered or dropped.",
    labels=("pipeline", "outcome"),
)
IN_FLIGHT = Instrument(
    "otelwp_pipeline_in_flight_items", "Items accepted and not settled yet.", InstrumentKind.GAUGE, ("pipeline",)
)
INSTRUMENTS = (ACCEPTED, SETTLED, IN_FLIGHT)


def bind_ledgers(registry: Registry, heads: Mapping[str, PipelineHead]) -> None:
    """Show the ledger of each pipeline."""
    for pipeline, head in heads.items():
        ledger = head.ledger
        registry.counter(ACCEPTED, partial(_accepted, ledger), pipeline=pipeline)
        registry.gauge(IN_FLIGHT, partial(_in_flight, ledger), pipeline=pipeline)
        for outcome in Outcome:
            registry.counter(SETTLED, partial(_settled, ledger, outcome), pipeline=pipeline, outcome=outcome.label)


def _accepted(ledger: Ledger) -> float:
    return ledger.accepted


def _in_flight(ledger: Ledger) -> float:
    return ledger.in_flight


def _settled(ledger: Ledger, outcome: Outcome) -> float:
    return ledger.settled[outcome]
