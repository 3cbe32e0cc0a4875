"""Metrics of the ledgers: `accepted = delivered + sampled_out + filtered + dropped + in_flight` for each pipeline.

The metrics divide `dropped` into `dropped`, which is lost, and `dead_letter`, which is kept.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from otelwp_agent.model.receipt import Outcome
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.model.receipt import Ledger
    from otelwp_agent.pipeline.entry import PipelineHead
    from otelwp_agent.telemetry.metrics import Registry

    Accounts = Mapping[tuple[str, str], Ledger]

ACCEPTED = Instrument("otelwp_pipeline_accepted_items", "Items that entered the pipeline.", labels=("pipeline",))
SETTLED = Instrument(
    "otelwp_pipeline_settled_items",
    "Items whose outcome is known: delivered, sampled_out, filtered, dropped (lost) or dead_letter (refused by the "
    "destination and kept).",
    labels=("pipeline", "outcome"),
)
IN_FLIGHT = Instrument(
    "otelwp_pipeline_in_flight_items", "Items accepted and not settled yet.", InstrumentKind.GAUGE, ("pipeline",)
)
KEPT = "dead_letter"
"""Label of dropped items that are kept as dead letters; `dropped` counts only those that are lost."""
INSTRUMENTS = (ACCEPTED, SETTLED, IN_FLIGHT)


def bind_ledgers(registry: Registry, heads: Mapping[str, PipelineHead]) -> None:
    """Bind the metrics to the accounts of each pipeline, summed over receivers and tenants."""
    for pipeline, head in heads.items():
        accounts = head.ledgers
        registry.counter(ACCEPTED, partial(_accepted, accounts), pipeline=pipeline)
        registry.gauge(IN_FLIGHT, partial(_in_flight, accounts), pipeline=pipeline)
        for outcome in Outcome:
            read = _lost if outcome is Outcome.DROPPED else partial(_settled, outcome=outcome)
            registry.counter(SETTLED, partial(read, accounts), pipeline=pipeline, outcome=outcome.label)
        registry.counter(SETTLED, partial(_kept, accounts), pipeline=pipeline, outcome=KEPT)


def _accepted(accounts: Accounts) -> float:
    return sum(ledger.accepted for ledger in accounts.values())


def _in_flight(accounts: Accounts) -> float:
    return sum(ledger.in_flight for ledger in accounts.values())


def _settled(accounts: Accounts, outcome: Outcome) -> float:
    return sum(ledger.settled[outcome] for ledger in accounts.values())


def _lost(accounts: Accounts) -> float:
    return _settled(accounts, Outcome.DROPPED) - _kept(accounts)


def _kept(accounts: Accounts) -> float:
    return sum(ledger.dead_letters for ledger in accounts.values())
