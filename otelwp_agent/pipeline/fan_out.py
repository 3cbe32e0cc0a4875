"""Forward one batch to several consumers: to all of them, or to none.

First, every branch reports whether it has capacity for the batch (`Consumer.refusal`). If one has not, the fan-out
refuses the batch before any branch has it; a `batch` processor or the client offers it again. Otherwise each branch
gets a fork, with receipts of its own and the flag `admitted`: from there on no bounded buffer may refuse it. All of
that happens in one call on one thread, so nothing can change in between.

A branch that has been full for too long is isolated (`pipeline.isolation`): the fan-out does not wait for it, and it
loses the batches that it cannot accept. They are settled as dropped there and counted.

A journaled batch needs no waiting: a full branch leaves its share in the journal (`Receipt.park`) and gets it when it
has capacity; the others continue at once. A batch that is read again from the journal may be for some branches only;
each gets what it has not settled.

Invariants:

* When `consume` raises, no branch has accepted anything of the batch.
* A batch that was accepted is accepted by every branch that is not isolated, unless a branch refuses it permanently,
  or a processor refuses an `admitted` batch; both are dropped there, and counted.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from otelwp_agent.capacity import Capacity, Offer
from otelwp_agent.errors import ConsumeError, Overloaded, RetryableError
from otelwp_agent.model.batch import merge
from otelwp_agent.model.projections import split_batch
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.pipeline.isolation import Branch, Isolation
from otelwp_agent.telemetry.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import structlog

    from otelwp_agent.component import Consumer
    from otelwp_agent.model.batch import Batch, Share
    from otelwp_agent.model.receipt import Receipt

    Refused = tuple[Branch, Batch, ConsumeError]
    """A branch, its fork, and why it did not accept it."""


_NONE: Mapping[Branch, RetryableError] = {}


class FanOut:
    """Forwards batches to every branch."""

    def __init__(
        self,
        branches: Sequence[Consumer],
        names: Sequence[str],
        *,
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
        patience: float = 1.0,
    ) -> None:
        """Feed `branches`, in their order; a journal stores their names.

        `clock`, `log` and `patience` are for the isolation of branches that are full for too long.
        """
        self.names = names
        self._branches = [Branch(branch, name) for branch, name in zip(branches, names, strict=True)]
        self._isolation = Isolation(self._branches, clock, log, patience)
        self._waits_for_none = len(names) == 1
        self._any = Capacity("fan-out", clock)
        """Capacity of any branch, for batches that need only one with capacity …"""
        self._relays: list[Offer] = []
        """… and one offer that waits at each of them meanwhile."""
        self._missing: Capacity | None = None
        """The capacity that the last refused batch was missing."""
        self._log = log
        self._limit = LogLimit(clock)

    @property
    def branches(self) -> list[Consumer]:
        """The consumers of all branches."""
        return [branch.consumer for branch in self._branches]

    def admit(self) -> None:
        """Raise `Overloaded` while the branch that refused last is full; the time does not depend on their number."""
        missing = self._missing
        if missing is not None and missing.full and not missing.share and not missing.root.isolated:
            raise Overloaded(f"{missing.root.owner} is full", reason="queue_full", capacity=missing)

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return why `consume` would refuse the batch now, or `None`."""
        if self._waits_for_none or batch.shares[0][0].claim is not None:
            refusals = [branch.consumer.refusal(batch) for branch in self._branches]
            return refusals[0] if all(refusals) else None
        return self._ask(batch, [])

    def consume(self, batch: Batch) -> None:
        """Forward the batch to every branch that is not isolated; raise, with nothing accepted, if one is full."""
        if self._waits_for_none or batch.shares[0][0].claim is not None:
            self._consume_where_possible(batch)
            return
        isolated: list[tuple[Branch, RetryableError]] = []
        blocking = self._ask(batch, isolated)
        if blocking is not None and not batch.admitted:
            try:
                raise blocking
            finally:
                del blocking  # else this frame, with the body, and the error would hold each other
        forks = [*zip(self._branches, batch.fork(self.names), strict=True)]
        refused = self._commit(forks, isolated)
        if len(refused) == len(forks):
            _undo(batch)
            try:
                raise _to_report([error for _, _, error in refused])
            finally:
                refused.clear()  # else this frame, with the body, and the error would hold each other
        for branch, fork, error in refused:
            self._lose(branch, fork, error)

    def close(self) -> None:
        """Stop watching the branches: another fan-out replaces this one."""
        self._isolation.close()
        self._stop_relays()

    def _ask(self, batch: Batch, isolated: list[tuple[Branch, RetryableError]]) -> RetryableError | None:
        """Return why a branch that is not isolated would refuse the batch; append isolated ones to `isolated`."""
        blocking: RetryableError | None = None
        for branch in self._branches:
            refusal = branch.consumer.refusal(batch)
            if refusal is None:
                continue
            if not self._isolation.blocks(branch, refusal):
                isolated.append((branch, refusal))
            elif blocking is None:
                blocking = refusal
        self._missing = None if blocking is None else blocking.capacity
        return blocking

    def _commit(
        self, forks: Sequence[tuple[Branch, Batch]], isolated: Sequence[tuple[Branch, RetryableError]]
    ) -> list[Refused]:
        """Forward its fork to each branch that is not isolated; return the refused ones."""
        refusals = dict(isolated) if isolated else _NONE
        refused: list[Refused] = []
        for branch, fork in forks:
            if branch in refusals:
                refused.append((branch, fork, refusals[branch]))
                continue
            fork.admitted = True
            try:
                branch.consumer.consume(fork)
            except ConsumeError as refusal:
                refused.append((branch, fork, refusal.with_traceback(None)))
            else:
                if branch.stalls:
                    self._isolation.accepted(branch)
        return refused

    def _consume_where_possible(self, batch: Batch) -> None:
        """Forward the batch to every branch that has capacity; raise only if all of them refuse.

        For journaled batches, and for a single branch.
        """
        refused: list[Refused] = []
        taken = False
        for branch, fork in zip(self._branches, _forks(self.names, batch), strict=True):
            if fork is None:
                continue
            try:
                branch.consumer.consume(fork)
            except ConsumeError as refusal:
                refused.append((branch, fork, refusal.with_traceback(None)))
            else:
                taken = True
        if not taken:
            _undo(batch)
            try:
                raise self._until_any([error for _, _, error in refused])
            finally:
                refused.clear()  # else this frame, with the body, and the error would hold each other
        for branch, fork, error in refused:
            self._lose(branch, fork, error)

    def _until_any(self, errors: Sequence[ConsumeError]) -> ConsumeError:
        """Return the refusal to report when every branch has refused; it waits for capacity of any of them."""
        retryable = [error for error in errors if isinstance(error, RetryableError)]
        if len(retryable) < 2:  # noqa: PLR2004 - no choice
            return retryable[0] if retryable else errors[0]
        self._stop_relays()
        self._relays = [Offer(self._freed) for _ in retryable]
        for relay, error in zip(self._relays, retryable, strict=True):
            relay.wait(error)
        first = retryable[0]
        self._any.cause = first.capacity
        self._any.refuse()
        return Overloaded(str(first), retry_after=first.retry_after, reason=first.reason, capacity=self._any)

    def _freed(self) -> None:
        self._stop_relays()
        self._any.freed()

    def _stop_relays(self) -> None:
        for relay in self._relays:
            relay.cancel()
        self._relays = []

    def _lose(self, branch: Branch, fork: Batch, error: ConsumeError) -> None:
        """Park journaled shares if they may be accepted later; drop the others."""
        lost = 0
        for receipt, items in fork.shares:
            if receipt.claim is not None and isinstance(error, RetryableError):
                receipt.park(items)
            else:
                receipt.settle(Outcome.DROPPED, items, error.reason)
                lost += items
        if not lost:
            return
        if isinstance(error, RetryableError) and self._isolation.lost(branch, error, lost):
            return
        if total := self._limit.take(lost):
            self._log.error("items dropped", branch=branch.name, reason=error.reason, items=total, error=str(error))


def _undo(batch: Batch) -> None:
    """Undo what claims of the journal have counted for forks that no branch accepted."""
    for receipt, items in batch.shares:
        if receipt.claim is not None:
            receipt.claim.entered(-items)


def _to_report(errors: Sequence[ConsumeError]) -> ConsumeError:
    """Return the refusal to report when every branch has refused: one after which the batch may be offered again."""
    return next((error for error in errors if isinstance(error, RetryableError)), errors[0])


def _forks(names: Sequence[str], batch: Batch) -> list[Batch | None]:
    """Return a fork for each branch, without the receipts that it has settled already; `None` if none is left."""
    runs = [(going, [items for _, items in run]) for going, run in groupby(batch.shares, lambda s: _going(names, s[0]))]
    if len(runs) == 1:
        return _forks_for(runs[0][0], names, batch)
    if batch.encodings:
        return _whole_forks(names, batch)
    columns: list[list[Batch]] = [[] for _ in names]
    for (going, _), part in zip(runs, split_batch(batch, [sum(sizes) for _, sizes in runs]), strict=True):
        for column, fork in zip(columns, _forks_for(going, names, part), strict=True):
            if fork is not None:
                column.append(fork)
    return [merge(column) if column else None for column in columns]


def _forks_for(going: Sequence[str], names: Sequence[str], batch: Batch) -> list[Batch | None]:
    """Return a fork for each branch in `going`, `None` for the others."""
    forks = iter(batch.fork(going))
    return [next(forks) if name in going else None for name in names]


def _whole_forks(names: Sequence[str], batch: Batch) -> list[Batch | None]:
    """Return what `_forks` returns, for an encoded batch of which a branch has settled some receipts.

    The body cannot be split. So a branch gets the items of settled receipts once more, but does not count them.
    """
    columns: dict[str, list[Share]] = {name: [] for name in names}
    for receipt, items in batch.shares:
        going = _going(names, receipt)
        for name, fork in zip(going, receipt.part(items).fork(going), strict=True):
            columns[name].append((fork, items))
    return [
        batch.with_body(batch.body, sum(items for _, items in shares), shares) if shares else None
        for shares in columns.values()
    ]


def _going(names: Sequence[str], receipt: Receipt) -> Sequence[str]:
    """Return the branches that have not settled the receipt; all if none is left (the configuration changed)."""
    if receipt.claim is None or not receipt.claim.done:
        return names
    done = receipt.claim.done
    return [name for name in names if name not in done] or names


def fan_out(
    branches: Sequence[Consumer],
    names: Sequence[str],
    *,
    clock: Callable[[], float],
    log: structlog.typing.FilteringBoundLogger,
) -> Consumer:
    """Return a consumer that feeds all of `branches`: the branch itself if there is only one."""
    return branches[0] if len(branches) == 1 else FanOut(branches, names, clock=clock, log=log)
