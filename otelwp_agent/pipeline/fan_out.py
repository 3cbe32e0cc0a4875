"""Hand one batch to several consumers, so that none of them feels the others.

Each branch gets receipts of its own. A branch that refuses while another takes loses the batch alone: it is settled as
dropped there and counted, and the sender is not asked to come back, for that would duplicate it into the others. Only
when every branch refuses has nothing been taken, and the refusal goes back to the sender.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import ConsumeError, RetryableError
from otelwp_agent.model.receipt import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.component import Consumer
    from otelwp_agent.model.batch import Batch


class FanOut:
    """Consumes into every branch."""

    def __init__(self, branches: Sequence[Consumer]) -> None:
        """Feed `branches`, in their order."""
        self.branches = branches

    def consume(self, batch: Batch) -> None:
        """Hand the batch to every branch; raise only if all of them refuse."""
        consume_forks(self.branches, batch)


def consume_forks(branches: Sequence[Consumer], batch: Batch) -> None:
    """Hand a fork of the batch to every branch; raise, with nothing taken, only if all of them refuse."""
    refused: list[tuple[Batch, ConsumeError]] = []
    forks = batch.fork(len(branches))
    for branch, fork in zip(branches, forks, strict=True):
        try:
            branch.consume(fork)
        except ConsumeError as error:
            refused.append((fork, error))
    if len(refused) == len(branches):
        refusals = [refusal for _, refusal in refused]
        told = next((refusal for refusal in refusals if isinstance(refusal, RetryableError)), refusals[0])
        told.given_up = _all_given_up(refusals)
        raise told
    for fork, refusal in refused:
        if refusal.given_up is not None:
            refusal.given_up(fork.items)
        fork.settle(Outcome.DROPPED, refusal.reason)


def _all_given_up(refusals: Sequence[ConsumeError]) -> Callable[[int], None]:
    """Return what tells every branch that refused."""
    tell = [refusal.given_up for refusal in refusals if refusal.given_up is not None]

    def given_up(items: int) -> None:
        for each in tell:
            each(items)

    return given_up


def fan_out(branches: Sequence[Consumer]) -> Consumer:
    """Return what feeds all of `branches`: the branch itself when there is one."""
    return branches[0] if len(branches) == 1 else FanOut(branches)
