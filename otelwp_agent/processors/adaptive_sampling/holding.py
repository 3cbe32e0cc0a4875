"""Hold traces that cannot be decided yet: add spans, reduce traces that are too large, and decide when they are due."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otelwp_agent.fair_share import allowance
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.processors.adaptive_sampling.dividing import parts_of
from otelwp_agent.processors.adaptive_sampling.waiting import Waiting, WaitingTraces
from otelwp_agent.sampling.traces import ERROR, ROOTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otelwp_agent.errors import Overloaded
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.receipt import Receipt
    from otelwp_agent.processors.adaptive_sampling.deciding import Decider
    from otelwp_agent.processors.adaptive_sampling.facts import FactsReader
    from otelwp_agent.processors.adaptive_sampling.measures import Measures
    from otelwp_agent.processors.adaptive_sampling.outgoing import Outgoing
    from otelwp_agent.processors.adaptive_sampling.recorder import FlightRecorder
    from otelwp_agent.sampling.traces import Piece, TraceRequest


# Looking up an enumeration member costs more than a module global, and each trace needs one.
_SAMPLED_OUT, _FILTERED = Outcome.SAMPLED_OUT, Outcome.FILTERED


class Holding:
    """Holds traces in memory, and forwards those that are kept."""

    def __init__(  # noqa: PLR0913 - the parts of one processor
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
        max_tenant_share: float,
    ) -> None:
        """Hold traces according to these settings of the processor."""
        self.held = WaitingTraces()
        self._decider = decider
        self._facts = facts
        self._measures = measures
        self._outgoing = outgoing
        self._recorder = recorder
        self._decision_wait = decision_wait
        self._max_wait = max_wait
        self._max_bytes = max_bytes
        self._share = max_tenant_share
        self._max_trace_bytes = max_trace_bytes

    @property
    def size(self) -> int:
        """Bytes of waiting traces, and of batches that the next stage has not accepted yet."""
        return self.held.size + self._outgoing.size

    @property
    def is_full(self) -> bool:
        """Whether memory is full and cannot be freed, because the next stage refuses batches."""
        return self._outgoing.blocked and self.size >= self._max_bytes

    def refusal(self, tenant: str) -> Overloaded | None:
        """Return the error for batches of a tenant while the memory is full and cannot be freed, else `None`."""
        if self.is_full:
            return self._outgoing.overloaded()
        if tenant and self._share < 1:
            own = self._outgoing.size_of(tenant)
            if own and own > allowance(self._max_bytes, self._share, self.size - own - self.held.use.of(tenant)):
                return self._outgoing.tenant_overloaded(tenant)
        return None

    def hold(
        self, batch: Batch, request: TraceRequest, pieces: Sequence[Piece], waiting: list[int], now: float
    ) -> None:
        """Hold the pieces at the positions `waiting`; decide the oldest traces early if memory is exceeded."""
        held, origin, read = self.held, batch.origin, self._facts.read
        tenant = origin.tenant
        traces, latest, due = held.traces, now + self._max_wait, now + self._decision_wait
        most = self._max_trace_bytes
        found = parts_of(batch, request, pieces, waiting, held.heads)
        for place, parts in zip(waiting, found, strict=True):
            trace_id, spans, weight, flags, states, duration, resource, fields = pieces[place]
            key: object = (tenant, trace_id) if tenant else trace_id  # `key_of`, without the call
            trace = traces.get(key) or Waiting(key, trace_id, origin, latest)
            held.add(trace, parts, spans, weight)
            if flags & ERROR:
                trace.error = True
            if states:
                trace.states = (*dict.fromkeys((*trace.states, *states)),)
            if flags & ROOTED and trace.facts is None:
                held.rooted(trace, read(resource, fields, origin), duration, due)
            if trace.size > most:
                self._shrink(trace, now)
        if tenant and self._share < 1:
            self._decide_above_share(tenant, now)
        while self.size > self._max_bytes and (oldest := held.oldest()) is not None:
            self._decide_early(oldest, now, "memory")
        self._outgoing.flush()

    def decide_due(self, now: float) -> None:
        """Decide about the traces that have waited long enough."""
        self._decide(self.held.take_due(now), now)
        self._outgoing.flush()

    def decide_all(self, now: float) -> None:
        """Decide about all traces, because the agent stops."""
        while (trace := self.held.oldest()) is not None:
            self._decide_early(trace, now, "shutdown")

    def _decide_above_share(self, tenant: str, now: float) -> None:
        """Decide the oldest traces of a tenant early while they use more than its share of the memory."""
        held, use = self.held, self.held.use
        while use.of(tenant) > allowance(self._max_bytes, self._share, self.size - use.of(tenant)):
            oldest = held.oldest_of(tenant)
            if oldest is None:
                return
            self._decide_early(oldest, now, "tenant_memory")

    def _shrink(self, trace: Waiting, now: float) -> None:
        """Reduce a trace that is too large to its error spine; decide immediately if that is still too large."""
        if not self._decider.dry_run:
            for receipt, items in self.held.cut(trace):
                receipt.settle(Outcome.SAMPLED_OUT, items)
                self._measures.cut.add(items)
        if not trace.parts or trace.size > self._max_trace_bytes // 2:
            self._decide_early(trace, now, "size")

    def _decide_early(self, trace: Waiting, now: float, cause: str) -> None:
        """Decide about a trace before it is due."""
        self.held.take(trace)
        self._measures.early(cause)
        self._decide([trace], now)

    def _decide(self, taken: Iterable[Waiting], now: float) -> None:
        """Decide about traces that were removed from memory; forward or settle them."""
        decide, decided = self._decider.decide, self._measures.decided
        dropped: dict[tuple[Receipt, Outcome], int] = {}
        for trace in taken:
            parts, spans, facts, duration = trace.parts, trace.spans, trace.facts, trace.duration
            if not parts:
                continue
            if facts is None:
                self._measures.odd("no_root")
                facts, duration = self._facts.read(trace.resource(), b"", trace.origin), trace.extent()
            verdict = decide(
                trace.key, trace.trace_id, trace.states, facts, spans, trace.weight, trace.error, duration, now
            )
            decided(verdict, 1, spans)
            if verdict.passes:
                self._outgoing.put(trace.batch(verdict))
                continue
            if self._recorder is not None and not verdict.filtered:
                self._recorder.record(trace.body(), [trace.trace_id], trace.origin, time.time())
            outcome = _FILTERED if verdict.filtered else _SAMPLED_OUT
            for _, _, items, receipt in parts:
                place = receipt, outcome
                dropped[place] = dropped.get(place, 0) + items
        # Most traces share receipts with others, and settling costs more than adding numbers.
        for (receipt, outcome), items in dropped.items():
            receipt.settle(outcome, items)
