"""`GET /audit` on the control socket: report every ledger of the running agent.

Items in flight are counted where they are held, not calculated from the other figures, so that the equation proves that
nothing is lost. For accounts, these are the items of all existing receipts and of the journal: a receipt that was
discarded without being settled is missing. For exporters, they are the items in their queues.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

from otelwp_agent.model.ledger_report import KINDS, LedgerLine, Report, totals
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.service.control import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otelwp_agent.model.receipt import Ledger
    from otelwp_agent.pipeline.graph import Graph
    from otelwp_agent.service.control import Control
    from otelwp_agent.transport.http_messages import Request, Response

    Key = tuple[str, str, str]


def add_audit(control: Control, graph: Callable[[], Graph]) -> None:
    """Serve the report on the graph that `graph` returns."""

    def audit(_request: Request) -> Response:
        return answer(report_of(graph()).to_json())

    control.add("/audit", audit, ("GET",))


def report_of(graph: Graph) -> Report:
    """Return every ledger: by pipeline, receiver and tenant, also of former pipelines, and of the current exporters.

    Iterates over all objects of the process, which takes some milliseconds, and more with 100,000 receipts or more.
    """
    in_flight = _held()
    journal = graph.environment.intake.journal if graph.environment.intake is not None else None
    for key, items in (journal.live() if journal is not None else {}).items():
        in_flight[key] = in_flight.get(key, 0) + items
    accounts = [(ledger.key, _line(ledger, in_flight)) for ledger in graph.environment.ledgers]
    lines: list[LedgerLine] = []
    for place, kind in enumerate(KINDS[:3]):
        for key, line in accounts:
            line.name = key[place]
        lines += totals(kind, [line for _, line in accounts])
    lines += totals("exporter", [sender.line() for sender in graph.senders.values()])
    return Report(lines, [], f"running agent, process {os.getpid()}")


def _held() -> dict[Key, int]:
    """Return the number of items that receipts hold, by account."""
    sums: dict[Key, int] = {}
    for found in gc.get_objects():
        if type(found) is Receipt and found.ledger is not None and found.pending > found.parked:
            key = found.ledger.key
            sums[key] = sums.get(key, 0) + found.pending - found.parked
    return sums


def _line(ledger: Ledger, in_flight: Mapping[Key, int]) -> LedgerLine:
    """Return an account as a line of the report; `in_flight` has the items in flight by account."""
    settled = ledger.settled
    return LedgerLine(
        "pipeline",
        "",
        accepted=ledger.accepted,
        delivered=settled[Outcome.DELIVERED],
        sampled_out=settled[Outcome.SAMPLED_OUT],
        filtered=settled[Outcome.FILTERED],
        dropped=settled[Outcome.DROPPED],
        in_flight=in_flight.get(ledger.key, 0),
        reasons=dict(ledger.dropped_reasons),
    )
