"""Requests that were decided about at once: what is kept is handed on, and then the rest is settled and counted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otelwp_agent.errors import ConsumeError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.traces import SpanView
from otelwp_agent.processors.adaptive_sampling.dividing import OUTCOMES, dropped, nothing_kept, select

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.processors.adaptive_sampling.deciding import Decided
    from otelwp_agent.processors.adaptive_sampling.measures import Measures
    from otelwp_agent.processors.adaptive_sampling.recorder import FlightRecorder

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

    def hand_on(self, batch: Batch, view: SpanView | None, decided: Sequence[Decided], *, states: bool) -> None:
        """Hand on what is kept, then settle what is not; what waits is left for `Holding`.

        `view` is that of the batch, if there is one, and cannot be read afterwards.
        """
        if nothing_kept(batch, decided):
            self._record(batch, decided)
            batch.settle(Outcome.SAMPLED_OUT)
        else:
            self._hand_on_selected(batch, view or SpanView(batch.body), decided, states=states)
        refused = self.refused
        for key, indexes, told, fresh in decided:
            if fresh or (refused and key in refused):
                refused.discard(key)
                self._measures.decided(told, 1, len(indexes))
            else:
                self._measures.late(told, len(indexes))

    def _hand_on_selected(self, batch: Batch, view: SpanView, decided: Sequence[Decided], *, states: bool) -> None:
        selection = select(batch, view, decided, states=states)
        if selection.batch is not None:
            try:
                self._send(selection.batch)
            except ConsumeError:
                if len(self.refused) > _REFUSED:
                    self.refused.clear()
                self.refused.update([key for key, _, _, fresh in decided if fresh])
                raise
        self._record(batch, decided)
        selection.settle(OUTCOMES)

    def _record(self, batch: Batch, decided: Sequence[Decided]) -> None:
        """Give what chance drops to the flight recorder."""
        if self._recorder is not None:
            body, trace_ids = dropped(batch, decided)
            if trace_ids:
                self._recorder.record(body, trace_ids, batch.origin, batch.shares[0][0].ledger, time.time())
