"""A contract: one rule that every component of some kinds keeps, and the function that checks it."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otelwp_agent.component import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from otelwp_agent.testing.subject import Subject

    Check = Callable[[Subject], Coroutine[Any, Any, None] | None]

STAGES = (Kind.PROCESSOR, Kind.CONNECTOR)
"""The kinds that take batches and forward them."""
LISTENERS = (Kind.RECEIVER, Kind.EXTENSION)
"""The kinds that listen on a port."""

PAGE = "docs/topics/contracts.md"
"""Where every contract is explained; `make docs` writes it from the contracts."""


class BrokenContractError(AssertionError):
    """A component breaks a contract; the message says which, what happened, and where to read about it."""


@dataclass(frozen=True, slots=True)
class Contract:
    """One rule. The docstring of `function` is the rule, in a line that a component's author can follow, and why."""

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
        """Check the component; raise `BrokenContractError`, or what the component raised, with the rule added to it."""
        head = f"{subject.name} breaks the contract `{self.name}`."
        rest = f"  The rule:      {self.rule}\n  Read about it: {PAGE}#{self.name}"
        try:
            checking = self.function(subject)
            if inspect.iscoroutine(checking):
                with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                    runner.run(checking)
        except _BrokenError as error:
            raise BrokenContractError(f"{head}\n  What happened: {error}\n{rest}") from error.__cause__
        except Exception as error:
            error.add_note(f"{head}\n{rest}")
            raise


class _BrokenError(Exception):
    """What `require` raises; `Contract.check` adds the rule."""


def contract(*, kinds: Collection[Kind] = tuple(Kind)) -> Callable[[Check], Contract]:
    """Make a contract of a function, with its name and docstring."""

    def make(function: Check) -> Contract:
        return Contract(function.__name__, kinds, function)

    return make


def require(condition: object, happened: str) -> None:
    """Fail the contract that is being checked, unless `condition` holds."""
    if not condition:
        raise _BrokenError(happened)
