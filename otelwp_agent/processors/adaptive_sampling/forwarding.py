"""Forward the kept spans of a request that was decided immediately, then settle and count the others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otelwp_agent.errors import ConsumeError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.processors.adaptive_sampling.deciding import key_of
from otelwp_agent.processors.adaptive_sampling.dividing import OUTCOMES, dropped, select

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.processors.adaptive_sampling.deciding import Decided
    from otelwp_agent.processors.adaptive_sampling.measures import Measures
    from otelwp_agent.processors.adaptive_sampling.recorder import FlightRecorder
    from otelwp_agent.processors.adaptive_sampling.verdict import TraceVerdict
    from otelwp_agent.sampling.traces import Piece, TraceRequest

_REFUSED = 10_000
"""Number of traces remembered from requests that the next stage refused: they arrive again, and are not late."""


class Forwarder:
    """Forwards the kept spans of requests."""

    def __init__(self, send: Callable[[Batch], None], measures: Measures, recorder: FlightRecorder | None) -> None:
        """Forward with `send`, which raises `ConsumeError` if the next stage refuses a batch."""
        self._send = send
        self._measures = measures
        self._recorder = recorder
        self.refused: set[object] = set()
        """Traces of requests that the next stage refused."""

    def forward(self, batch: Batch, request: TraceRequest, pieces: Sequence[Piece], decided: Decided) -> None:
        """Forward what is kept; spans that wait are ignored here, and `Holding` gets them."""
        verdicts, followed = decided.verdicts, decided.followed
        tenant, refused = batch.origin.tenant, self.refused
        if verdicts and all([verdict is not None and verdict.drops for verdict in {*verdicts}]):  # noqa: C419 - a third of the time
            # Everything is dropped, which is the most frequent case: nothing needs to be divided.
            self._record(batch, request, pieces, verdicts)
            batch.settle(Outcome.SAMPLED_OUT)
        else:
            selection = select(batch, request, pieces, verdicts)
            if selection.batch is not None:
                try:
                    self._send(selection.batch)
                except ConsumeError:
                    self._remember_refused(batch, pieces, decided)
                    raise
            self._record(batch, request, pieces, verdicts)
            selection.settle(OUTCOMES)
        if followed or refused:
            self._count(pieces, verdicts, {*followed}, tenant)
            return
        decided_about = self._measures.decided
        for piece, verdict in zip(pieces, verdicts, strict=True):
            if verdict is not None:
                decided_about(verdict, 1, piece[1])

    def _count(
        self, pieces: Sequence[Piece], verdicts: Sequence[TraceVerdict | None], followed: Container[int], tenant: str
    ) -> None:
        """Count decisions, and separately spans that follow an earlier one. Those of a refused request are not late."""
        for place, (piece, verdict) in enumerate(zip(pieces, verdicts, strict=True)):
            if verdict is None:
                continue
            key = key_of(tenant, piece[0])
            if place in followed and key not in self.refused:
                self._measures.late(verdict, piece[1])
            else:
                self.refused.discard(key)
                self._measures.decided(verdict, 1, piece[1])

    def _remember_refused(self, batch: Batch, pieces: Sequence[Piece], decided: Decided) -> None:
        if len(self.refused) > _REFUSED:
            self.refused.clear()
        late = {*decided.followed}
        for place, (piece, verdict) in enumerate(zip(pieces, decided.verdicts, strict=True)):
            if verdict is not None and place not in late:
                self.refused.add(key_of(batch.origin.tenant, piece[0]))

    def _record(
        self, batch: Batch, request: TraceRequest, pieces: Sequence[Piece], verdicts: Sequence[TraceVerdict | None]
    ) -> None:
        """Give the spans that are dropped by probability to the flight recorder."""
        if self._recorder is not None:
            body, trace_ids = dropped(batch, request, pieces, verdicts)
            if trace_ids:
                self._recorder.record(body, trace_ids, batch.origin, time.time())
