"""Get a decision for each trace from the controller, and remember it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.processors.adaptive_sampling.facts import sampled_before
from otelwp_agent.processors.adaptive_sampling.verdict import Memory, TraceVerdict
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
"""Facts of a trace of which only the id is read."""
_VERDICTS = 8192
"""Number of cached verdicts; there is one for each threshold."""


class Decided(NamedTuple):
    """Decisions about the pieces of a request."""

    verdicts: list[TraceVerdict | None]
    """The verdict of each piece; `None`: the piece must wait."""
    followed: list[int]
    """Positions of the pieces that follow an earlier decision."""
    waiting: list[int]
    """Positions of the pieces that must wait."""


def key_of(tenant: str, trace_id: bytes) -> object:
    """Return the key of a trace in memory. It contains the tenant, because tenants can send equal trace ids."""
    return (tenant, trace_id) if tenant else trace_id


class Decider:
    """Asks the controller once about each trace."""

    def __init__(self, controller: Controller, facts: FactsReader, memory: Memory, *, dry_run: bool) -> None:
        """Use `controller` for decisions and `facts` to read its input."""
        self.controller = controller
        self.memory = memory
        self.dry_run = dry_run
        self.odd: Callable[[str], None] = lambda _kind: None
        """Called with the kind of each problem of a trace."""
        self.observer: DecisionObserver | None = None
        self._facts = facts
        self._verdicts: dict[tuple[str, int | None, bool], TraceVerdict] = {}

    def decide_pieces(  # noqa: PLR0913, PLR0917 - called for every request; an object would cost time
        self,
        pieces: Sequence[Piece],
        origin: Origin,
        held: Container[object],
        refused: Container[object],
        most: int,
        now: float,
    ) -> Decided:
        """Decide about pieces that are whole traces, or whose trace was decided before.

        Traces in `held` are waiting already. Those in `refused` arrive again, and their cost is already recorded.
        Traces larger than `most` bytes must wait.
        """
        verdicts: list[TraceVerdict | None] = []
        followed: list[int] = []
        waiting: list[int] = []
        decided = verdicts.append
        tenant, memory, decide, read = origin.tenant, self.memory, self.decide, self._facts.read
        young, old = memory.young.get, memory.old
        for trace_id, spans, size, flags, states, duration, resource, fields in pieces:
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
                facts = read(resource, fields, origin)
                decided(decide(key, trace_id, states, facts, spans, size, flags & ERROR != 0, duration, now))
            else:
                waiting.append(len(verdicts))
                decided(None)
        return Decided(verdicts, followed, waiting)

    def decide_by_id(self, pieces: Sequence[Piece], tenant: str, refused: Container[object], now: float) -> Decided:
        """Decide about the pieces by trace ids alone.

        More spans of these traces may follow, so the cost of each part is recorded, except for those in `refused`,
        which arrive again.
        """
        verdicts: list[TraceVerdict | None] = []
        followed: list[int] = []
        observer = self.observer
        for trace_id, spans, size, flags, states, _, _, _ in pieces:
            key: object = (tenant, trace_id) if tenant else trace_id
            known = self.memory.get(key)
            if known is not None:
                if key not in refused:
                    threshold = sampled_before(trace_id, states).threshold if states else 0
                    self.controller.follow((tenant,) if tenant else (), spans, threshold, kept=known.keep)
                if observer is not None:
                    observer(key, None, spans, size, known.keep, known.reason)
                followed.append(len(verdicts))
                verdicts.append(known)
            elif flags & INVALID:
                self.odd(_INVALID)
                verdicts.append(self._invalid())
            else:
                verdict = self.decide(key, trace_id, states, _NOTHING, spans, size, error=False, duration=0.0, now=now)
                verdicts.append(verdict)
        return Decided(verdicts, followed, [])

    def decide(  # noqa: PLR0913, PLR0917 - the fields of a trace; an object would cost time
        self,
        key: object,
        trace_id: bytes,
        states: Sequence[bytes],
        facts: Facts,
        spans: int,
        size: int,
        error: bool,  # noqa: FBT001 - called for every trace: keyword arguments cost time
        duration: float,
        now: float,
    ) -> TraceVerdict:
        """Decide about a trace and remember the verdict. `duration` is in seconds."""
        of, site, release, debug, rule = facts
        tenant = ""
        if isinstance(key, tuple):
            tenant = key[0]
            of = (*of, tenant)
        if rule is not None and (rule[1] or not error):
            verdict = self._verdict(rule[0], None, keep=False, filtered=True)
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
                randomness, threshold, of, site, spans, size, duration, error, debug, release, now, tenant
            )
            if not keep:
                given = None
            verdict = self._verdicts.get((reason, given, keep)) or self._verdict(reason, given, keep=keep)
        self.memory.put(key, verdict)
        if self.observer is not None:
            self.observer(key, of, spans, size, verdict.keep, verdict.reason)
        return verdict

    def find_late_errors(
        self, recorded: Container[object], pieces: Sequence[Piece], origin: Origin, now: float
    ) -> list[bytes]:
        """Return recorded traces for which an error arrives late, as far as the ceiling of errors allows.

        These traces are kept from now on.
        """
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

    def _invalid(self) -> TraceVerdict:
        """Return the verdict on spans without a valid trace id: they belong to no trace."""
        return self._verdict(_INVALID, None, keep=False, filtered=True)

    def _verdict(self, reason: str, threshold: int | None, *, keep: bool, filtered: bool = False) -> TraceVerdict:
        """Return the verdict with these values, shared by all traces with the same decision."""
        key = (reason, threshold, keep)
        if len(self._verdicts) >= _VERDICTS:
            self._verdicts.clear()
        verdict = self._verdicts[key] = TraceVerdict(
            reason, threshold, keep=keep, dry_run=self.dry_run, filtered=filtered
        )
        return verdict
