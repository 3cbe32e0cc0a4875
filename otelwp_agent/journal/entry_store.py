"""The segments of a journal, and the state of each entry: waiting, running, or released.

Invariants:

* An entry that is not released is either running, and then has a `JournaledRequest`, or waits, and then the state of
  its segment says for what.
* `Segment.kept` goes down only when a release is on disk; a segment is deleted when nothing in it is kept.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.fair_share import TenantUse
from otelwp_agent.journal.claims import NOTHING, JournaledRequest
from otelwp_agent.journal.segment import FIRST_PARTLY_DONE, RELEASED, RUNNING, WAITING
from otelwp_agent.telemetry.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import structlog

    from otelwp_agent.journal.claims import Done, Keeper
    from otelwp_agent.journal.records import JournalRecord, RequestContext
    from otelwp_agent.journal.recovery import Recovered
    from otelwp_agent.journal.segment import Segment

_PARTLY_DONE_STATES = 256 - FIRST_PARTLY_DONE
GLANCES = 1000
READ_INTERVAL = 1.0
"""Seconds until an entry that the disk did not return is read again."""
Spot = tuple[int, int, int]
"""An entry in its segment: offset, number of its context, items."""


class Replay(NamedTuple):
    """An entry that was read again. Without `record` it is damaged."""

    entry: JournaledRequest
    record: JournalRecord | None
    context: RequestContext | None


class EntryStore:
    """Segments, the oldest first."""

    def __init__(self, keeper: Keeper, log: structlog.typing.FilteringBoundLogger) -> None:
        """Start empty; `keeper` gets the reports of claims."""
        self.segments: list[Segment] = []
        self.entries = 0
        """Requests that are not settled."""
        self.use = TenantUse()
        """Bytes of the entries of each tenant that are not released."""
        self.used = 0
        """Bytes of all entries that are not released."""
        self._keeper = keeper
        self._log = log
        self.unreadable: dict[tuple[int, int], float] = {}
        """Entries that the disk did not return, and when to read them again, by (number of the segment, index)."""
        self._limit = LogLimit(time.monotonic)
        self._running: dict[tuple[int, int], JournaledRequest] = {}
        """Running entries by (number of the segment, index)."""
        self._done_sets: list[Done] = []
        """Settled branches that the states from `FIRST_PARTLY_DONE` on stand for."""

    @property
    def stored(self) -> int:
        """Bytes on disk."""
        return sum([segment.size for segment in self.segments])

    @property
    def waiting(self) -> int:
        """Entries that wait to be fed."""
        return sum([segment.waiting for segment in self.segments])

    def restore(self, recovered: Recovered) -> None:
        """Continue with the segments that were read."""
        self.segments = recovered.segments
        self.entries = recovered.entries
        for segment in self.segments:
            for seq in [seq for seq in recovered.branches if segment.first <= seq < segment.end]:
                if segment.states[seq - segment.first] == WAITING:  # otherwise it is damaged, and settled as such
                    segment.states[seq - segment.first] = self._state_of(frozenset(recovered.branches[seq]))
            waiting = [at for at, state in enumerate(segment.states) if state != RELEASED]
            segment.waiting_for.update((segment.context_numbers[at], segment.states[at]) for at in waiting)
            for at in waiting:
                self._use(segment, at, segment.sizes[at])

    def add(self, segment: Segment, spots: list[Spot]) -> int:
        """Add entries that were written to a segment, as running; return the index of the first."""
        first = len(segment.states)
        for offset, number, items in spots:
            segment.offsets.append(offset)
            segment.context_numbers.append(number)
            segment.items.append(items)
            segment.sizes.append(0)
        segment.states.extend(bytes([RUNNING]) * len(spots))
        segment.kept += len(spots)
        return first

    def begin(self, segment: Segment, index: int, items: int, size: int) -> JournaledRequest:
        """Return the `JournaledRequest` of a new entry."""
        segment.live += 1
        segment.live_bytes += size
        segment.sizes[index] = size
        self._use(segment, index, size)
        self.entries += 1
        return self._run(segment, index, items, size)

    def end(self, entry: JournaledRequest) -> bool:
        """Finish an entry; return True if it is released, False if it waits to be fed again."""
        segment, index = entry.segment, entry.index
        del self._running[segment.number, index]
        if entry.parked:
            state = segment.states[index] = self._state_of(entry.done)
            segment.waiting_for[segment.context_numbers[index], state] += 1
            return False
        segment.states[index] = RELEASED
        segment.live -= 1
        segment.live_bytes -= entry.size
        self._use(segment, index, -segment.sizes[index])
        self.entries -= 1
        return True

    def move(self, old: Segment, index: int, segment: Segment, place: int, size: int) -> bool:
        """Move an entry to its copy in a newer segment; return whether it has been released meanwhile."""
        state = old.states[index]
        segment.states[place] = state
        segment.sizes[place] = size
        if state == RELEASED:
            return True
        entry = self._running.pop((old.number, index), None)
        if entry is not None:
            entry.segment, entry.index, entry.size = segment, place, size
            self._running[segment.number, place] = entry
        else:
            _stop_waiting(old, index, state)
            segment.waiting_for[segment.context_numbers[place], state] += 1
        self._use(segment, place, size - old.sizes[index])
        old.states[index] = RELEASED
        old.live -= 1
        old.kept -= 1
        segment.live += 1
        segment.live_bytes += size
        return False

    def living(self, segment: Segment, most: int) -> Iterator[tuple[int, JournalRecord, RequestContext, Done]]:
        """Yield up to `most` bytes of entries of a segment that are not released, with their settled branches."""
        for index, state in enumerate(segment.states):
            if state == RELEASED:
                continue
            try:
                record = segment.entry(index)
            except OSError as error:
                if self._limit.take():
                    self._log.warning("journal entry not copied: it cannot be read", error=error.strerror)
                continue
            context = segment.contexts.get(segment.context_numbers[index])
            if record is None or context is None:
                continue  # it is dropped when it would be fed
            yield index, record, context, self.done(segment, index)
            most -= len(record.payload)
            if most < 0:
                return

    def replays(self, ready: Callable[[RequestContext, Done], bool]) -> Iterator[Replay | None]:
        """Yield the entries that wait and can be fed, the oldest first; the caller feeds each at once.

        `ready` returns whether an entry with this context and these settled branches can be fed. Yields `None` after
        each `GLANCES` entries that cannot, so that the caller can let other tasks run.
        """
        passed = 0
        for segment in list(self.segments):
            classes = [key for key in segment.waiting_for if self._is_ready(segment, key, ready)]
            for state in sorted({state for _, state in classes}):
                numbers = {number for number, of_state in classes if of_state == state}
                index = segment.states.find(state)
                while index >= 0 and numbers:
                    number = segment.context_numbers[index]
                    if number not in numbers:
                        passed += 1
                        if not passed % GLANCES:
                            yield None
                    elif self._is_ready(segment, (number, state), ready):
                        if not self.unreadable or self._may_read(segment, index):
                            replay = self._read(segment, index)
                            if replay is not None:
                                yield replay
                    else:
                        numbers.discard(number)
                    index = segment.states.find(state, index + 1)

    def live(self) -> dict[tuple[str, str, str], int]:
        """Return the items that are not settled, by pipeline, receiver and tenant, counted entry by entry."""
        sums: dict[tuple[str, str, str], int] = {}
        for segment in self.segments:
            for index, state in enumerate(segment.states):
                context = segment.contexts.get(segment.context_numbers[index])
                if state == RELEASED or context is None:
                    continue
                done = self.done(segment, index)
                for place, pipeline in enumerate(context.pipelines):
                    if (place, "") not in done:
                        key = (pipeline, context.origin.receiver, context.origin.tenant)
                        sums[key] = sums.get(key, 0) + segment.items[index]
        return sums

    def done(self, segment: Segment, index: int) -> Done:
        """Return the branches that have settled an entry that is not released."""
        state = segment.states[index]
        return self._running[segment.number, index].done if state == RUNNING else self._done_of(state)

    def released(self, segment: Segment) -> list[int]:
        """Return the numbers of the entries of a segment that are released."""
        return [segment.first + index for index, state in enumerate(segment.states) if state == RELEASED]

    def partly_done(self, segment: Segment) -> list[tuple[int, int, str]]:
        """Return the settled branches of entries that are not released: (number, pipeline, branch)."""
        return [
            (segment.first + index, place, name)
            for index, state in enumerate(segment.states)
            if state != RELEASED
            for place, name in self.done(segment, index)
        ]

    def prune(self) -> list[Segment]:
        """Remove and return the oldest segments that are not needed, but never the newest: it has the accounts."""
        pruned: list[Segment] = []
        while len(self.segments) > 1 and not self.segments[0].kept:
            pruned.append(self.segments.pop(0))
        return pruned

    def _is_ready(self, segment: Segment, key: tuple[int, int], ready: Callable[[RequestContext, Done], bool]) -> bool:
        """Return whether entries of this context and state can be fed; those without a context are dropped."""
        context = segment.contexts.get(key[0])
        return context is None or ready(context, self._done_of(key[1]))

    def _may_read(self, segment: Segment, index: int) -> bool:
        """Return False for an entry that could not be read less than `READ_INTERVAL` ago."""
        return time.monotonic() >= self.unreadable.get((segment.number, index), 0.0)

    def _read(self, segment: Segment, index: int) -> Replay | None:
        """Read a waiting entry and mark it as running; return `None`, and let it wait, if the disk cannot be read."""
        try:
            record = segment.entry(index)
        except OSError as error:
            self.unreadable[segment.number, index] = time.monotonic() + READ_INTERVAL
            entries = self._limit.take()
            if entries:
                self._log.error(
                    "journal cannot be read; entries wait",
                    file=str(segment.path),
                    failures=entries,
                    error=error.strerror,
                    advice="check the disk; reading is tried again",
                )
            return None
        self.unreadable.pop((segment.number, index), None)
        state = segment.states[index]
        _stop_waiting(segment, index, state)
        segment.states[index] = RUNNING
        size = record.end - record.offset if record is not None else 0
        entry = self._run(segment, index, segment.items[index], size)
        entry.done = self._done_of(state)
        return Replay(entry, record, segment.contexts.get(segment.context_numbers[index]))

    def _use(self, segment: Segment, index: int, size: int) -> None:
        """Add `size` bytes to what is used, by the tenant of an entry and by all."""
        self.used += size
        context = segment.contexts.get(segment.context_numbers[index])
        if context is not None and context.origin.tenant:
            self.use.add(context.origin.tenant, size)

    def _run(self, segment: Segment, index: int, items: int, size: int) -> JournaledRequest:
        entry = self._running[segment.number, index] = JournaledRequest(self._keeper, segment, index, items, size)
        return entry

    def _done_of(self, state: int) -> Done:
        return self._done_sets[state - FIRST_PARTLY_DONE] if state >= FIRST_PARTLY_DONE else NOTHING

    def _state_of(self, done: Done) -> int:
        """Return the state of a waiting entry with these settled branches."""
        if not done:
            return WAITING
        if done not in self._done_sets:
            if len(self._done_sets) >= _PARTLY_DONE_STATES:
                return WAITING  # a byte has no more states; settled branches get the entry again
            self._done_sets.append(done)
        return FIRST_PARTLY_DONE + self._done_sets.index(done)


def _stop_waiting(segment: Segment, index: int, state: int) -> None:
    """Count an entry that no longer waits."""
    key = (segment.context_numbers[index], state)
    segment.waiting_for[key] -= 1
    if not segment.waiting_for[key]:
        del segment.waiting_for[key]
