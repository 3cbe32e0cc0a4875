"""Forward traces that were dropped, from the flight recorder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.processors.adaptive_sampling.deciding import key_of
from otelwp_agent.processors.adaptive_sampling.recorder import RESCUED
from otelwp_agent.sampling.traces import read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otelwp_agent.model.batch import Batch, Origin
    from otelwp_agent.processors.adaptive_sampling.deciding import Decider
    from otelwp_agent.processors.adaptive_sampling.measures import Measures
    from otelwp_agent.processors.adaptive_sampling.outgoing import Outgoing
    from otelwp_agent.processors.adaptive_sampling.recorder import FlightRecorder
    from otelwp_agent.sampling.traces import Piece


class Rescuer:
    """Forwards dropped traces on request, or because an error arrived after its trace was dropped."""

    def __init__(self, recorder: FlightRecorder, decider: Decider, outgoing: Outgoing, measures: Measures) -> None:
        """Read traces from `recorder`, and forward them to `outgoing`."""
        self._recorder = recorder
        self._decider = decider
        self._outgoing = outgoing
        self._measures = measures

    def rescue(self, trace_id: bytes | None, since: float | None, where: Mapping[str, str] | None) -> int:
        """Forward the traces that match; return their number of spans (`AdaptiveSampling.rescue`)."""
        return self._forward(self._recorder.rescue(trace_id, since, where))

    def find_late_errors(self, pieces: Sequence[Piece], origin: Origin, now: float) -> list[bytes]:
        """Return the dropped traces for which an error arrives late: they are kept from now on."""
        return self._decider.find_late_errors(self._recorder, pieces, origin, now)

    def forward_late_errors(self, trace_ids: Sequence[bytes], tenant: str) -> None:
        """Forward the recorded spans of these traces, and count them against the ceiling of errors."""
        for trace_id in trace_ids:
            rescued = self._recorder.rescue(trace_id, tenant=tenant)
            spans = self._forward(rescued)
            self._decider.controller.book_rescued(spans, sum([len(each.body) for each in rescued]))

    def _forward(self, batches: Sequence[Batch]) -> int:
        """Forward rescued batches; return their number of spans. Later spans of their traces are kept as well."""
        for batch in batches:
            for trace_id, *_ in read(batch.body)[1]:
                self._decider.memory.put(key_of(batch.origin.tenant, trace_id), RESCUED)
            self._outgoing.put(batch)
        spans = sum([batch.items for batch in batches])
        self._measures.rescued.add(spans)
        self._outgoing.flush()
        return spans
