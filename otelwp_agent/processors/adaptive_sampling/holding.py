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

_AT_ONCE = 256
"""Traces that are due and decided about together."""


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
        traces, latest, due = room.traces, now + self._max_wait, now + self._decision_wait
        most = self._max_trace_bytes
        for (key, piece), found in zip(waiting, parts, strict=True):
            trace = traces.get(key) or room.open(key, piece.trace_id, origin, latest)
            if piece.error:
                trace.error = True
            if piece.states:
                trace.states = {*piece.states, *(trace.states or ())}
            for part, root_at in found:
                room.add(trace, part)
                if root_at >= 0 and trace.root < 0:
                    room.rooted(trace, root_at, due)
            if trace.size > most:
                self._shrink(trace, now)
        while self.size > self._max_bytes and (oldest := room.oldest()) is not None:
            self._decide_early(oldest, now, "memory")
        self._outgoing.flush()

    def decide_due(self, now: float) -> None:
        """Decide about what has waited long enough."""
        taken = []
        for trace in self.room.due(now):
            self.room.take(trace)
            taken.append(trace)
            if len(taken) == _AT_ONCE:
                self._decide(taken, now)
                taken = []
        self._decide(taken, now)
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

    def _decide(self, taken: Sequence[Waiting], now: float) -> None:
        """Decide about traces that were taken out of the room, put them on their way or settle them."""
        traces = [trace for trace in taken if trace.parts]
        roots = [trace.find_root() for trace in traces]
        decide, decided, weighs = self._decider.decide, self._measures.decided, self._decider.weighs
        for trace, (root, _, _), facts in zip(traces, roots, self._facts.read_all(roots), strict=True):
            if root is None:
                self._measures.odd("no_root")
                facts = *facts[:4], trace.extent(), facts[5]  # noqa: PLW2901 - the same, with a duration
            spans, parts = trace.spans, trace.parts
            # What a budget in bytes pays for, which is less than the memory that it took to wait.
            size = sum([len(span) for part in parts for span in part.spans]) if weighs else 0
            told = decide(trace.key, trace.trace_id, trace.states or (), facts, spans, size, trace.error, now)
            decided(told, 1, spans)
            if told.passes:
                self._outgoing.put(trace.batch(told))
                continue
            if self._recorder is not None and not told.filtered:
                ledger = parts[0].receipt.ledger
                self._recorder.record(trace.body(None), [trace.trace_id], trace.origin, ledger, time.time())
            outcome = Outcome.FILTERED if told.filtered else Outcome.SAMPLED_OUT
            for part in parts:
                part.receipt.settle(outcome, len(part.spans))
