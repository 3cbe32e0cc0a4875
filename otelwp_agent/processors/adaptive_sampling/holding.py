"""Traces that cannot be decided about yet: they are let in, cut if they are too large, and decided about when due."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otelwp_agent.model.receipt import Outcome
from otelwp_agent.processors.adaptive_sampling.waiting import WaitingRoom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.model.batch import Origin
    from otelwp_agent.model.traces import Piece
    from otelwp_agent.processors.adaptive_sampling.deciding import Decider
    from otelwp_agent.processors.adaptive_sampling.facts import FactsReader
    from otelwp_agent.processors.adaptive_sampling.measures import Measures
    from otelwp_agent.processors.adaptive_sampling.outgoing import Outgoing
    from otelwp_agent.processors.adaptive_sampling.recorder import FlightRecorder
    from otelwp_agent.processors.adaptive_sampling.waiting import Part, Waiting


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

    def let_wait(
        self,
        waiting: Sequence[tuple[object, Piece]],
        parts: Sequence[Sequence[tuple[Part, int]]],
        origin: Origin,
        now: float,
    ) -> None:
        """Put spans into the room, and make place if that was too much."""
        room = self.room
        for (key, piece), found in zip(waiting, parts, strict=True):
            trace = room.find(key) or room.open(key, piece.trace_id, origin, now + self._max_wait)
            trace.error |= piece.error
            if piece.states:
                trace.states = {*piece.states, *(trace.states or ())}
            for part, root_at in found:
                room.add(trace, part)
                if root_at >= 0 and trace.root < 0:
                    room.rooted(trace, root_at, now + self._decision_wait)
            if trace.size > self._max_trace_bytes:
                self._shrink(trace, now)
        while self.size > self._max_bytes and (oldest := room.oldest()) is not None:
            self._decide(oldest, now, "memory")
        self._outgoing.flush()

    def decide_due(self, now: float) -> None:
        """Decide about what has waited long enough."""
        for trace in self.room.due(now):
            self._decide(trace, now)
        self._outgoing.flush()

    def decide_all(self, now: float) -> None:
        """Decide about everything, because the agent stops."""
        while (trace := self.room.oldest()) is not None:
            self._decide(trace, now, "shutdown")

    def _shrink(self, trace: Waiting, now: float) -> None:
        """Cut a trace that is too large to its error spine; decide about it now if even that is large."""
        if not self._decider.dry_run:
            for receipt, items in self.room.cut(trace):
                receipt.settle(Outcome.SAMPLED_OUT, items)
                self._measures.cut.add(items)
        if not trace.parts or trace.size > self._max_trace_bytes // 2:
            self._decide(trace, now, "size")

    def _decide(self, trace: Waiting, now: float, cause: str = "") -> None:
        """Decide about a trace that has waited, put it on its way or settle it."""
        self.room.take(trace)
        if cause:
            self._measures.early(cause)
        if not trace.parts:
            return
        root, resource = trace.find_root()
        facts = self._facts.read(root, resource, trace.origin)
        if root is None:
            self._measures.odd("no_root")
            facts = *facts[:4], trace.extent(), facts[5]
        # What a budget in bytes pays for, which is less than the memory that it took to wait.
        size = sum([len(span) for part in trace.parts for span in part.spans]) if self._decider.weighs else 0
        told = self._decider.decide(
            trace.key, trace.trace_id, trace.states or (), facts, trace.spans, size, trace.error, now
        )
        self._measures.decided(told, 1, trace.spans)
        if told.passes:
            self._outgoing.put(trace.batch(told))
            return
        if self._recorder is not None and not told.filtered:
            ledger = trace.parts[0].receipt.ledger
            self._recorder.record(trace.body(None), [trace.trace_id], trace.origin, ledger, time.time())
        for part in trace.parts:
            part.receipt.settle(Outcome.FILTERED if told.filtered else Outcome.SAMPLED_OUT, len(part.spans))
