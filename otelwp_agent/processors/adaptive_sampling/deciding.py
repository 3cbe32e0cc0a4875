"""Deciding about traces: what is asked of the controller, and what is remembered of its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.processors.adaptive_sampling.facts import sampled_before
from otelwp_agent.processors.adaptive_sampling.verdict import Memory, Verdict
from otelwp_agent.sampling.adaptive.trace import Reason
from otelwp_agent.sampling.traces import DUPLICATES, ERROR, INVALID, WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from otelwp_agent.model.batch import Origin
    from otelwp_agent.processors.adaptive_sampling.facts import Facts, FactsReader
    from otelwp_agent.sampling.adaptive.controller import Controller
    from otelwp_agent.sampling.trace_sampler import DecisionObserver
    from otelwp_agent.sampling.traces import Piece

_INVALID = "invalid_trace_id"
_NOTHING: Facts = ((), "", "", False, None)
"""What is known of a trace of which only the id is read."""
_VERDICTS = 8192
"""Verdicts that are kept; each threshold makes one."""


class Decided(NamedTuple):
    """What was decided about a request."""

    verdicts: list[Verdict | None]
    """Of each piece; `None`: it must wait."""
    followed: list[int]
    """The places of those that follow what was decided before."""
    waiting: list[int]
    """The places of those that must wait."""


def key_of(tenant: str, trace_id: bytes) -> object:
    """Return what a trace is known by: tenants must not meet, whatever ids they make up."""
    return (tenant, trace_id) if tenant else trace_id


class Decider:
    """Asks the controller about each trace once."""

    def __init__(self, controller: Controller, facts: FactsReader, memory: Memory, *, dry_run: bool) -> None:
        """Ask `controller`, about what `facts` reads."""
        self.controller = controller
        self.memory = memory
        self.dry_run = dry_run
        self.odd: Callable[[str], None] = lambda _kind: None
        """Called for whatever is wrong with a trace."""
        self.observer: DecisionObserver | None = None
        self._facts = facts
        self._verdicts: dict[tuple[str, int | None, bool], Verdict] = {}

    def decide_pieces(  # noqa: PLR0913, PLR0917 - what there is to know
        self,
        pieces: Sequence[Piece],
        origin: Origin,
        held: Container[object],
        refused: Container[object],
        most: int,
        now: float,
    ) -> Decided:
        """Decide about what is whole, or was decided about before.

        Traces in `held` wait already; those `refused` come again, and what they cost is booked; what is larger than
        `most` bytes is not decided about in a hurry.
        """
        verdicts: list[Verdict | None] = []
        followed: list[int] = []
        waiting: list[int] = []
        decided = verdicts.append
        tenant, memory, decide, read = origin.tenant, self.memory, self.decide, self._facts.read
        young, old = memory.young.get, memory.old
        for trace_id, spans, size, flags, states, duration, resource, said in pieces:
            key: object = (tenant, trace_id) if tenant else trace_id  # `key_of`, without the call
            known = young(key)
            if known is None and key in old:
                known = memory.get(key)
            if flags & DUPLICATES:
                self.odd("duplicate_span_id")
            if known is not None:
                followed.append(len(verdicts))
                decided(known)
                if known.keep and key not in refused:
                    self.controller.book_late(spans, size)
                if self.observer is not None:
                    self.observer(key, None, spans, size, known.keep, known.reason)
            elif flags & INVALID:
                self.odd(_INVALID)
                decided(self._invalid())
            elif flags & WHOLE and key not in held and size <= most:
                facts = read(resource, said, origin)
                decided(decide(key, trace_id, states, facts, spans, size, flags & ERROR != 0, duration, now))
            else:
                waiting.append(len(verdicts))
                decided(None)
        return Decided(verdicts, followed, waiting)

    def decide_by_id(self, pieces: Sequence[Piece], tenant: str, refused: Container[object], now: float) -> Decided:
        """Decide about what is there by trace ids alone.

        Other spans of these traces may follow, so each part is booked, but for `refused` ones that come again.
        """
        verdicts: list[Verdict | None] = []
        followed: list[int] = []
        observer = self.observer
        for trace_id, spans, size, flags, states, _, _, _ in pieces:
            key: object = (tenant, trace_id) if tenant else trace_id
            known = self.memory.get(key)
            if known is not None:
                if key not in refused:
                    threshold = sampled_before(trace_id, states).threshold if states else 0
                    self.controller.follow((), spans, threshold, kept=known.keep)
                if observer is not None:
                    observer(key, None, spans, size, known.keep, known.reason)
                followed.append(len(verdicts))
                verdicts.append(known)
            elif flags & INVALID:
                self.odd(_INVALID)
                verdicts.append(self._invalid())
            else:
                told = self.decide(key, trace_id, states, _NOTHING, spans, size, error=False, duration=0.0, now=now)
                verdicts.append(told)
        return Decided(verdicts, followed, [])

    def decide(  # noqa: PLR0913, PLR0917 - what there is to know of a trace
        self,
        key: object,
        trace_id: bytes,
        states: Sequence[bytes],
        facts: Facts,
        spans: int,
        size: int,
        error: bool,  # noqa: FBT001 - called for every trace: names cost
        duration: float,
        now: float,
    ) -> Verdict:
        """Decide about a trace, and remember it. `duration` is in seconds."""
        of, site, release, debug, rule = facts
        if rule is not None and (rule[1] or not error):
            told = self._verdict(rule[0], None, keep=False, filtered=True)
        else:
            threshold = 0
            if states:
                randomness, threshold, odd = sampled_before(trace_id, states)
                if odd:
                    self.odd(odd)
            else:
                randomness = int.from_bytes(trace_id[9:], "big")
            if duration < 0:
                self.odd("clock_skew")
                duration = 0.0
            keep, given, reason = self.controller.judge(
                randomness, threshold, of, site, spans, size, duration, error, debug, release, now
            )
            if not keep:
                given = None
            told = self._verdicts.get((reason, given, keep)) or self._verdict(reason, given, keep=keep)
        self.memory.put(key, told)
        if self.observer is not None:
            self.observer(key, of, spans, size, told.keep, told.reason)
        return told

    def find_late_errors(
        self, recorded: Container[object], pieces: Sequence[Piece], origin: Origin, now: float
    ) -> list[bytes]:
        """Return recorded traces that an error comes late for, if there is room for errors; they are kept from now."""
        found = []
        for trace_id, spans, size, flags, _, _, _, _ in pieces:
            if not flags & ERROR:
                continue
            key = key_of(origin.tenant, trace_id)
            known = self.memory.get(key)
            is_new = flags & WHOLE if known is None else known.passes
            if is_new or trace_id not in recorded:
                continue
            if self.controller.admit_error(spans, size, now):
                self.memory.put(key, self._verdict(Reason.ERROR, None, keep=True))
                found.append(trace_id)
        return found

    def _invalid(self) -> Verdict:
        """Return the verdict on spans without a trace id: they belong to no trace."""
        return self._verdict(_INVALID, None, keep=False, filtered=True)

    def _verdict(self, reason: str, threshold: int | None, *, keep: bool, filtered: bool = False) -> Verdict:
        """Return the verdict of these, one for all traces of which the same was decided."""
        key = (reason, threshold, keep)
        if len(self._verdicts) >= _VERDICTS:
            self._verdicts.clear()
        told = self._verdicts[key] = Verdict(reason, threshold, keep=keep, dry_run=self.dry_run, filtered=filtered)
        return told
