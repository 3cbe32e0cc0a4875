"""`GET /graph` on the control socket: the running pipelines and components, with their figures and positions.

The answer is an object with these fields:

* `status`, `started_at` and `now` (seconds since 1970), `version`, `stalled` (a sentence, or "");
* `pipelines`: for each its `id`, `signal`, the ids of its `receivers`, `processors` and `exporters`, and its `ledger`
  (`accepted`, `delivered`, `sampled_out`, `filtered`, `dropped`, `in_flight`, in items, since the start);
* `components`: for each its `kind` (`receivers`), `id`, `type`, `file` and `line` (0: unknown), `healthy`, `message`,
  `details` (as in `/health/detailed`), and `figures`: totals of items by name, such as `accepted` or `sent`;
* `service`: the parts of the service that report a state, such as the journal, in the form of `components`.

Figures are totals: clients compute rates from two answers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import otelwp_agent
from otelwp_agent.component import Kind
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.service.control import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.component import ComponentHealth, Host
    from otelwp_agent.model.receipt import Ledger
    from otelwp_agent.pipeline.graph import Graph
    from otelwp_agent.pipeline.plan_types import ComponentPlan
    from otelwp_agent.service.control import Control
    from otelwp_agent.telemetry.metrics import Registry
    from otelwp_agent.transport.http_messages import Request, Response

FIGURES: dict[Kind, dict[str, str]] = {
    Kind.RECEIVER: {"accepted": "otelcol_receiver_accepted_{}", "refused": "otelcol_receiver_refused_{}"},
    Kind.EXPORTER: {
        "sent": "otelcol_exporter_sent_{}",
        "failed": "otelcol_exporter_send_failed_{}",
        "lost": "otelcol_exporter_enqueue_failed_{}",
    },
}
"""Names of the metrics of each figure; `{}` is replaced by the items of a signal (`spans`)."""


def add_topology(control: Control, graph: Callable[[], Graph], host: Host, registry: Registry) -> None:
    """Serve `GET /graph` for the graph that `graph` returns."""

    def topology(_request: Request) -> Response:
        return answer(topology_of(graph(), host, registry))

    control.add("/graph", topology, ("GET",))


def topology_of(graph: Graph, host: Host, registry: Registry) -> dict[str, Any]:
    """Return the graph as JSON-compatible data."""
    states = host.components()
    stall = host.stall()
    return {
        "version": otelwp_agent.__version__,
        "status": host.status,
        "started_at": host.started_at,
        "now": time.time(),
        "stalled": "" if stall is None else str(stall),
        "pipelines": [
            {
                "id": pipeline.id,
                "signal": pipeline.signal.value,
                "receivers": [str(each) for each in pipeline.receivers],
                "processors": [str(each) for each in pipeline.processors],
                "exporters": [str(each) for each in pipeline.exporters],
                "ledger": _ledger(graph.heads[pipeline.id].total),
            }
            for pipeline in graph.plan.pipelines.values()
        ],
        "components": [_component(planned, states, registry) for planned in graph.plan.components.values()],
        "service": [
            {"id": state.id, "healthy": state.healthy, "message": state.message, "details": dict(state.details)}
            for state in states
            if state.kind is None
        ],
    }


def _component(planned: ComponentPlan, states: Sequence[ComponentHealth], registry: Registry) -> dict[str, Any]:
    """Return one component; an exporter of several signals reports one state for each of them."""
    name, kind = str(planned.id), planned.kind
    found = [state for state in states if state.kind is kind and state.id == name]
    return {
        "kind": kind.value,
        "id": name,
        "type": planned.factory.type,
        "file": planned.at.file if planned.at is not None else "",
        "line": planned.at.line if planned.at is not None else 0,
        "healthy": all(state.healthy for state in found),
        "message": "; ".join(dict.fromkeys(state.message for state in found if state.message)),
        "details": [dict(state.details) for state in found],
        "figures": {
            figure: sum(registry.value(metric.format(signal.items), **{kind.label: name}) for signal in Signal)
            for figure, metric in FIGURES.get(kind, {}).items()
        },
    }


def _ledger(ledger: Ledger) -> dict[str, int]:
    settled = ledger.settled
    return {
        "accepted": ledger.accepted,
        "delivered": settled[Outcome.DELIVERED],
        "sampled_out": settled[Outcome.SAMPLED_OUT],
        "filtered": settled[Outcome.FILTERED],
        "dropped": settled[Outcome.DROPPED],
        "in_flight": ledger.in_flight,
    }
