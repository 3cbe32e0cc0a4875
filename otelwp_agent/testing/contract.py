"""A contract: one rule for every component of some kinds, and the function that checks it."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otelwp_agent.component import Kind
from otelwp_agent.testing.requirement import RequirementError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from otelwp_agent.testing.subject import Subject

    Check = Callable[[Subject], Coroutine[Any, Any, None] | None]

PAGE = "docs/topics/contracts.md"
"""The page that explains every contract; `make docs` generates it from the docstrings of the contracts."""


class BrokenContractError(AssertionError):
    """A component breaks a contract; the message contains the rule, what happened, and the page that explains it."""


@dataclass(frozen=True, slots=True)
class Contract:
    """One rule. The first line of the docstring of `function` is the rule; the rest gives the reason."""

    name: str
    kinds: Collection[Kind]
    function: Check

    @property
    def rule(self) -> str:
        """The rule, in one sentence."""
        return inspect.cleandoc(self.function.__doc__ or "").partition("\n")[0]

    @property
    def why(self) -> str:
        """The reason for it, and how to keep it."""
        return inspect.cleandoc(self.function.__doc__ or "").partition("\n")[2].strip()

    def check(self, subject: Subject) -> None:
        """Check a component; raise `BrokenContractError`, or the component's own exception with the rule as a note."""
        head = f"{subject.name} breaks the contract `{self.name}`."
        rest = f"  The rule:      {self.rule}\n  Read about it: {PAGE}#{self.name}"
        try:
            checking = self.function(subject)
            if inspect.iscoroutine(checking):
                with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                    runner.run(checking)
        except RequirementError as error:
            raise BrokenContractError(f"{head}\n  What happened: {error}\n{rest}") from error.__cause__
        except Exception as error:
            error.add_note(f"{head}\n{rest}")
            raise


def contract(*, kinds: Collection[Kind] = tuple(Kind)) -> Callable[[Check], Contract]:
    """Return a decorator that makes a contract for components of `kinds` from a function."""

    def make(function: Check) -> Contract:
        return Contract(function.__name__, kinds, function)

    return make
