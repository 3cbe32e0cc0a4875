"""Traces that cannot be decided about yet: they are let in, cut if they are too large, and decided about when due."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otelwp_agent.model.receipt import Outcome
from otelwp_agent.processors.adaptive_sampling.dividing import parts_of
from otelwp_agent.processors.adaptive_sampling.waiting import Waiting, WaitingRoom
from otelwp_agent.sampling.traces import ERROR, ROOTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.receipt import Receipt
    from otelwp_agent.processors.adaptive_sampling.deciding import Decider
    from otelwp_agent.processors.adaptive_sampling.facts import FactsReader
    from otelwp_agent.processors.adaptive_sampling.measures import Measures
    from otelwp_agent.processors.adaptive_sampling.outgoing import Outgoing
    from otelwp_agent.processors.adaptive_sampling.recorder import FlightRecorder
    from otelwp_agent.sampling.traces import Piece, Request


# An enumeration's member costs more to look up than a module's name, and each trace needs one.
_SAMPLED_OUT, _FILTERED = Outcome.SAMPLED_OUT, Outcome.FILTERED


class Holding:
    """Holds traces in a waiting room, and puts what is kept of them on its way."""

    def __init__(  # noqa: PLR0913 - the stages of one processor
        self,
        decider: Decider,
        facts: FactsReader,
        measures: Measures,
        outgoing: Outgoing,
        recorder: FlightRecorder | None,
        *,
        decision_wait: float,
        max_wait: float,
        max_bytes: int,
        max_trace_bytes: int,
    ) -> None:
        """Hold traces as long as these settings of the processor say."""
        self.room = WaitingRoom()
        self._decider = decider
        self._facts = facts
        self._measures = measures
        self._outgoing = outgoing
        self._recorder = recorder
        self._decision_wait = decision_wait
        self._max_wait = max_wait
        self._max_bytes = max_bytes
        self._max_trace_bytes = max_trace_bytes

    @property
    def size(self) -> int:
        """Bytes of what waits, and of what the next stage has not taken yet."""
        return self.room.size + self._outgoing.size

    @property
    def is_full(self) -> bool:
        """Whether there is no room, nor any to be made, because the next stage takes nothing."""
        return self._outgoing.blocked and self.size >= self._max_bytes

    def let_wait(self, batch: Batch, request: Request, pieces: Sequence[Piece], waiting: list[int], now: float) -> None:
        """Put the pieces at these places into the room, and make place if that was too much."""
        room, origin, read = self.room, batch.origin, self._facts.read
        tenant = origin.tenant
        traces, latest, due = room.traces, now + self._max_wait, now + self._decision_wait
        most = self._max_trace_bytes
        found = parts_of(batch, request, pieces, waiting, room.heads)
        for place, parts in zip(waiting, found, strict=True):
            trace_id, spans, weight, flags, states, duration, resource, said = pieces[place]
            key: object = (tenant, trace_id) if tenant else trace_id  # `key_of`, without the call
            trace = traces.get(key) or Waiting(key, trace_id, origin, latest)
            room.add(trace, parts, spans, weight)
            if flags & ERROR:
                trace.error = True
            if states:
                trace.states = (*dict.fromkeys((*trace.states, *states)),)
            if flags & ROOTED and trace.facts is None:
                room.rooted(trace, read(resource, said, origin), duration, due)
            if trace.size > most:
                self._shrink(trace, now)
        while self.size > self._max_bytes and (oldest := room.oldest()) is not None:
            self._decide_early(oldest, now, "memory")
        self._outgoing.flush()

    def decide_due(self, now: float) -> None:
        """Decide about what has waited long enough."""
        self._decide(self.room.take_due(now), now)
        self._outgoing.flush()

    def decide_all(self, now: float) -> None:
        """Decide about everything, because the agent stops."""
        while (trace := self.room.oldest()) is not None:
            self._decide_early(trace, now, "shutdown")

    def _shrink(self, trace: Waiting, now: float) -> None:
        """Cut a trace that is too large to its error spine; decide about it now if even that is large."""
        if not self._decider.dry_run:
            for receipt, items in self.room.cut(trace):
                receipt.settle(Outcome.SAMPLED_OUT, items)
                self._measures.cut.add(items)
        if not trace.parts or trace.size > self._max_trace_bytes // 2:
            self._decide_early(trace, now, "size")

    def _decide_early(self, trace: Waiting, now: float, cause: str) -> None:
        """Decide about a trace before its time."""
        self.room.take(trace)
        self._measures.early(cause)
        self._decide([trace], now)

    def _decide(self, taken: Iterable[Waiting], now: float) -> None:
        """Decide about traces that were taken out of the room, put them on their way or settle them."""
        decide, decided = self._decider.decide, self._measures.decided
        gone: dict[tuple[Receipt, Outcome], int] = {}
        for trace in taken:
            parts, spans, facts, duration = trace.parts, trace.spans, trace.facts, trace.duration
            if not parts:
                continue
            if facts is None:
                self._measures.odd("no_root")
                facts, duration = self._facts.read(trace.resource(), b"", trace.origin), trace.extent()
            told = decide(
                trace.key, trace.trace_id, trace.states, facts, spans, trace.weight, trace.error, duration, now
            )
            decided(told, 1, spans)
            if told.passes:
                self._outgoing.put(trace.batch(told))
                continue
            if self._recorder is not None and not told.filtered:
                ledger = parts[0][3].ledger
                self._recorder.record(trace.body(), [trace.trace_id], trace.origin, ledger, time.time())
            outcome = _FILTERED if told.filtered else _SAMPLED_OUT
            for _, _, items, receipt in parts:
                place = receipt, outcome
                gone[place] = gone.get(place, 0) + items
        # Most traces share their receipts with others, and settling costs more than adding up.
        for (receipt, outcome), items in gone.items():
            receipt.settle(outcome, items)
