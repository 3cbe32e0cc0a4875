"""Deciding about traces: what is asked of the controller, and what is remembered of its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.processors.adaptive_sampling.facts import sampled_before
from otelwp_agent.processors.adaptive_sampling.verdict import Memory, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Sequence

    from otelwp_agent.component import Observer
    from otelwp_agent.model.adaptive.controller import Controller
    from otelwp_agent.model.batch import Origin
    from otelwp_agent.model.traces import Piece, SpanView
    from otelwp_agent.processors.adaptive_sampling.facts import Facts, FactsReader

    Decided = tuple[object, Sequence[int], Verdict, bool]
    """A trace's key, its spans in the request, what was decided, and whether that was just now, about all of it."""

INVALID = "invalid_trace_id"
_LENGTH, _NONE = 16, bytes(16)
"""Bytes of a trace id, and one that is none."""
_NOTHING: Facts = ((), "", "", False, 0.0, None)
"""What is known of a trace of which only the id is read."""
_VERDICTS = 8192
"""Verdicts that are kept; each threshold makes one."""


def key_of(tenant: str, trace_id: bytes) -> object:
    """Return what a trace is known by: tenants must not meet, whatever ids they make up."""
    return (tenant, trace_id) if tenant else trace_id


class Decider:
    """Asks the controller about each trace once."""

    def __init__(
        self, controller: Controller, facts: FactsReader, memory: Memory, *, dry_run: bool, weighs: bool
    ) -> None:
        """`weighs`: the budget counts bytes."""
        self.controller = controller
        self.memory = memory
        self.dry_run = dry_run
        self.odd: Callable[[str], None] = lambda _kind: None
        """Called for whatever is wrong with a trace."""
        self.weighs = weighs
        self.observer: Observer | None = None
        self._facts = facts
        self._verdicts: dict[tuple[str, int | None, bool], Verdict] = {}

    def decide_pieces(  # noqa: C901, PLR0913, PLR0917 - what there is to know
        self, pieces: Sequence[Piece], view: SpanView, origin: Origin, held: Container[object], most: int, now: float
    ) -> tuple[list[Decided], list[tuple[object, Piece]]]:
        """Decide about what is whole, or was decided about before; return that, and what must wait.

        Traces in `held` wait already; what is larger than `most` bytes is not decided about in a hurry.
        """
        decided: list[Decided] = []
        waiting: list[tuple[object, Piece]] = []
        whole: list[tuple[object, Piece, int]] = []
        items, tenant, memory = view.items, origin.tenant, self.memory
        young, old = memory.young.get, memory.old
        for piece in pieces:
            trace_id = piece.trace_id
            key: object = (tenant, trace_id) if tenant else trace_id  # `key_of`, without the call
            known = young(key)
            if known is None and key in old:
                known = memory.get(key)
            if piece.duplicates:
                self.odd("duplicate_span_id")
            if known is not None:
                decided.append((key, piece.indexes, known, False))
                if self.observer is not None:
                    size = sum([len(items[index]) for index in piece.indexes])
                    self.observer(key, None, len(piece.indexes), size, known.keep, known.reason)
                continue
            if len(trace_id) != _LENGTH or trace_id == _NONE:
                self.odd(INVALID)
                decided.append((key, piece.indexes, self._verdict(INVALID, None, keep=False, filtered=True), True))
                continue
            if piece.root < 0 or key in held or not piece.complete:
                waiting.append((key, piece))
                continue
            size = 0
            if self.weighs or most:
                size = sum([len(items[index]) for index in piece.indexes])
                if most and size > most:
                    waiting.append((key, piece))
                    continue
            whole.append((key, piece, size))
        if whole:
            roots = [(items[piece.root], view.resource_of(piece.root), origin) for _, piece, _ in whole]
            for (key, piece, size), facts in zip(whole, self._facts.read_all(roots), strict=True):
                indexes = piece.indexes
                known = self.decide(key, piece.trace_id, piece.states, facts, len(indexes), size, piece.error, now)
                decided.append((key, indexes, known, True))
        return decided, waiting

    def decide_by_id(
        self, pieces: Sequence[Piece], items: Sequence[bytes], tenant: str, refused: Container[object], now: float
    ) -> list[Decided]:
        """Decide about what is there by trace ids alone; `items` are read for the observer, if there is one.

        Other spans of these traces may follow, so each part is booked, but for `refused` ones that come again.
        """
        decided: list[Decided] = []
        for piece in pieces:
            trace_id, indexes = piece.trace_id, piece.indexes
            spans = len(indexes)
            key: object = (tenant, trace_id) if tenant else trace_id
            size = 0 if self.observer is None else sum([len(items[index]) for index in indexes])
            known = self.memory.get(key)
            if known is not None:
                if key not in refused:
                    threshold = sampled_before(trace_id, piece.states).threshold if piece.states else 0
                    self.controller.follow((), spans, threshold, kept=known.keep)
                if self.observer is not None:
                    self.observer(key, None, spans, size, known.keep, known.reason)
                decided.append((key, indexes, known, False))
            elif len(trace_id) != _LENGTH or trace_id == _NONE:
                self.odd(INVALID)
                decided.append((key, indexes, self._verdict(INVALID, None, keep=False, filtered=True), True))
            else:
                told = self.decide(key, trace_id, piece.states, _NOTHING, spans, size, False, now)  # noqa: FBT003
                decided.append((key, indexes, told, True))
        return decided

    def decide(  # noqa: PLR0913, PLR0917 - what there is to know of a trace
        self,
        key: object,
        trace_id: bytes,
        states: Collection[bytes],
        facts: Facts,
        spans: int,
        size: int,
        error: bool,  # noqa: FBT001 - called for every trace: names cost
        now: float,
    ) -> Verdict:
        """Decide about a trace, and remember it."""
        of, site, release, debug, duration, rule = facts
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
        self, recorded: Container[object], pieces: Sequence[Piece], view: SpanView, origin: Origin, now: float
    ) -> list[bytes]:
        """Return recorded traces that an error comes late for, if there is room for errors; they are kept from now."""
        found = []
        for piece in pieces:
            if not piece.error:
                continue
            key = key_of(origin.tenant, piece.trace_id)
            known = self.memory.get(key)
            is_new = piece.complete if known is None else known.passes
            if is_new or piece.trace_id not in recorded:
                continue
            facts = self._facts.read(None, view.resource_of(piece.indexes[0]), origin)
            told = self.decide(key, piece.trace_id, piece.states, facts, len(piece.indexes), 0, piece.error, now)
            if told.passes:
                found.append(piece.trace_id)
        return found

    def _verdict(self, reason: str, threshold: int | None, *, keep: bool, filtered: bool = False) -> Verdict:
        """Return the verdict of these, one for all traces of which the same was decided."""
        key = (reason, threshold, keep)
        if len(self._verdicts) >= _VERDICTS:
            self._verdicts.clear()
        told = self._verdicts[key] = Verdict(reason, threshold, keep=keep, dry_run=self.dry_run, filtered=filtered)
        return told
