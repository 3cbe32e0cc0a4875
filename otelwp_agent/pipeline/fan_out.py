"""Hand one batch to several consumers, so that none of them feels the others.

Each branch gets receipts of its own. A branch that refuses while another takes loses the batch alone, and the sender is
not asked to come back, for that would duplicate it into the others: what a journal has waits there for that branch
(`Receipt.park`), the rest is settled as dropped there and counted. Only when every branch refuses has nothing been
taken, and the refusal goes back to the sender.

What a journal brings back may be for some branches only; each gets what is left for it.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from otelwp_agent.errors import ConsumeError, RetryableError
from otelwp_agent.model.batch import merge
from otelwp_agent.model.projections import split_batch
from otelwp_agent.model.receipt import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.component import Consumer
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.receipt import Receipt


class FanOut:
    """Consumes into every branch."""

    def __init__(self, branches: Sequence[Consumer], names: Sequence[str]) -> None:
        """Feed `branches`, in their order; each has a name by which a journal remembers it."""
        self.branches = branches
        self.names = names

    def consume(self, batch: Batch) -> None:
        """Hand the batch to every branch; raise only if all of them refuse."""
        consume_forks(self.branches, self.names, batch)


def consume_forks(branches: Sequence[Consumer], names: Sequence[str], batch: Batch) -> None:
    """Hand a fork of the batch to every branch; raise, with nothing taken, only if all of them refuse."""
    refused: list[tuple[Batch, ConsumeError]] = []
    taken = False
    for branch, fork in zip(branches, _forks(names, batch), strict=True):
        if fork is None:
            continue
        try:
            branch.consume(fork)
        except ConsumeError as error:
            refused.append((fork, error))
        else:
            taken = True
    if not taken:
        for receipt, items in batch.shares:
            if receipt.claim is not None:
                receipt.claim.entered(-items)
        refusals = [refusal for _, refusal in refused]
        told = next((refusal for refusal in refusals if isinstance(refusal, RetryableError)), refusals[0])
        told.given_up = _all_given_up(refusals)
        raise told
    for fork, refusal in refused:
        _give_up(fork, refusal)


def _forks(names: Sequence[str], batch: Batch) -> list[Batch | None]:
    """Return a fork for each branch, with what that branch has not settled already; `None` if that is nothing."""
    runs = [(going, [items for _, items in run]) for going, run in groupby(batch.shares, lambda s: _going(names, s[0]))]
    if len(runs) == 1:
        return _forks_for(runs[0][0], names, batch)
    columns: list[list[Batch]] = [[] for _ in names]
    for (going, _), part in zip(runs, split_batch(batch, [sum(sizes) for _, sizes in runs]), strict=True):
        for column, fork in zip(columns, _forks_for(going, names, part), strict=True):
            if fork is not None:
                column.append(fork)
    return [merge(column) if column else None for column in columns]


def _forks_for(going: Sequence[str], names: Sequence[str], batch: Batch) -> list[Batch | None]:
    """Return a fork for each branch that is among those `going`."""
    forks = iter(batch.fork(going))
    return [next(forks) if name in going else None for name in names]


def _going(names: Sequence[str], receipt: Receipt) -> Sequence[str]:
    """Return the branches that have not settled it before; all of them if none is left (the configuration changed)."""
    if receipt.claim is None or not receipt.claim.done:
        return names
    done = receipt.claim.done
    return [name for name in names if name not in done] or names


def _give_up(fork: Batch, refusal: ConsumeError) -> None:
    """Park what a journal has, if it may be taken later; drop the rest."""
    for receipt, items in fork.shares:
        if receipt.claim is not None and isinstance(refusal, RetryableError):
            receipt.park(items)
        else:
            if refusal.given_up is not None:
                refusal.given_up(items)
            receipt.settle(Outcome.DROPPED, items, refusal.reason)


def _all_given_up(refusals: Sequence[ConsumeError]) -> Callable[[int], None]:
    """Return what tells every branch that refused."""
    tell = [refusal.given_up for refusal in refusals if refusal.given_up is not None]

    def given_up(items: int) -> None:
        for each in tell:
            each(items)

    return given_up


def fan_out(branches: Sequence[Consumer], names: Sequence[str]) -> Consumer:
    """Return what feeds all of `branches`: the branch itself when there is one."""
    return branches[0] if len(branches) == 1 else FanOut(branches, names)
