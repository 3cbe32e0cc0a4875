"""Requests that were decided about at once: what is kept is handed on, and then the rest is settled and counted."""

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
    from otelwp_agent.processors.adaptive_sampling.verdict import Verdict
    from otelwp_agent.sampling.traces import Piece, Request

_REFUSED = 10_000
"""Traces remembered of requests that the next stage refused: they come again, and are not late."""


class Handing:
    """Hands on what is kept of requests."""

    def __init__(self, send: Callable[[Batch], None], measures: Measures, recorder: FlightRecorder | None) -> None:
        """Hand on by `send`, which raises `ConsumeError` if the next stage does not take a batch."""
        self._send = send
        self._measures = measures
        self._recorder = recorder
        self.refused: set[object] = set()
        """Traces of requests that the next stage refused."""

    def hand_on(self, batch: Batch, request: Request, pieces: Sequence[Piece], decided: Decided) -> None:
        """Hand on what is kept; what waits is left for `Holding`."""
        verdicts, followed = decided.verdicts, decided.followed
        tenant, refused = batch.origin.tenant, self.refused
        if verdicts and all([told is not None and told.drops for told in {*verdicts}]):  # noqa: C419 - a third of the time
            # Chance drops all of it, as it mostly does: then nothing needs to be divided.
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
        for piece, told in zip(pieces, verdicts, strict=True):
            if told is not None:
                decided_about(told, 1, piece[1])

    def _count(
        self, pieces: Sequence[Piece], verdicts: Sequence[Verdict | None], followed: Container[int], tenant: str
    ) -> None:
        """Count what was decided, and apart from that what follows it; what comes again is not late."""
        for place, (piece, told) in enumerate(zip(pieces, verdicts, strict=True)):
            if told is None:
                continue
            key = key_of(tenant, piece[0])
            if place in followed and key not in self.refused:
                self._measures.late(told, piece[1])
            else:
                self.refused.discard(key)
                self._measures.decided(told, 1, piece[1])

    def _remember_refused(self, batch: Batch, pieces: Sequence[Piece], decided: Decided) -> None:
        if len(self.refused) > _REFUSED:
            self.refused.clear()
        late = {*decided.followed}
        for place, (piece, told) in enumerate(zip(pieces, decided.verdicts, strict=True)):
            if told is not None and place not in late:
                self.refused.add(key_of(batch.origin.tenant, piece[0]))

    def _record(
        self, batch: Batch, request: Request, pieces: Sequence[Piece], verdicts: Sequence[Verdict | None]
    ) -> None:
        """Give what chance drops to the flight recorder."""
        if self._recorder is not None:
            body, trace_ids = dropped(batch, request, pieces, verdicts)
            if trace_ids:
                self._recorder.record(body, trace_ids, batch.origin, batch.shares[0][0].ledger, time.time())
