"""Every error that the agent raises on purpose.

::

    AgentError
    ├── ConfigError(problems)         the configuration is wrong; lists every problem, each with its place
    ├── LoadError                     the package of a third-party component is broken
    ├── StartError(component, ...)    a component cannot start (a port in use, a missing file)
    └── ConsumeError                  a batch was not taken; nothing of it was kept by who raised
        ├── PermanentError            sending the same bytes again cannot help
        │   ├── MalformedError        ... because the bytes are not what they claim to be
        │   └── TooLargeError         ... because there are too many of them at once: smaller parts may pass
        ├── InternalError             a component has a bug, which has been logged under its id
        └── RetryableError(retry_after)   the same bytes may be taken later
            └── Overloaded            ... because there is no room now

`transport.status` is the one module that maps these to HTTP and gRPC.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.capacity import Capacity


class AgentError(Exception):
    """Base of every error that the agent raises on purpose."""


class Severity(Enum):
    """How bad a configuration problem is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration, and what would be right.

    `file`, `line` and `column` (both from 1) say where; `path` is the dotted key path.
    """

    message: str
    path: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        """Return `file:line:column: path: message`, leaving out what is not known."""
        place = ":".join(str(part) for part in (self.file, self.line or "", self.column or "") if part)
        head = ": ".join(part for part in (place, self.path) if part)
        text = f"{head}: {self.message}" if head else self.message
        return f"warning: {text}" if self.severity is Severity.WARNING else text


class ConfigError(AgentError):
    """The configuration is wrong; `problems` lists everything that is, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep `problems`, in the order in which they should be read."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class LoadError(AgentError):
    """The package of a third-party component cannot be loaded; the message names the component and the package."""


class StartError(AgentError):
    """A component cannot start; the message names the component and what to do."""


class ConsumeError(AgentError):
    """A batch was not taken.

    Whoever raises this kept nothing of the batch and settled none of its receipts: both stay with the caller.
    `reason` is a short constant for metric labels.
    """

    reason = "error"
    items = 0
    """The items that a receiver could not hand over; 0 as long as nobody has counted them."""

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        """Say what is wrong; `reason` replaces the class's own metric label."""
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class PermanentError(ConsumeError):
    """Sending the same bytes again cannot help."""

    reason = "permanent"


class MalformedError(PermanentError):
    """The bytes are not what they claim to be."""

    reason = "malformed"


class TooLargeError(PermanentError):
    """There are too many bytes or items at once; smaller parts may pass."""

    reason = "too_large"


class InternalError(ConsumeError):
    """A component raised something else than a `ConsumeError`: a bug, which was logged under the component's id."""

    reason = "internal"


class RetryableError(ConsumeError):
    """The same bytes may be taken later; `retry_after` (seconds) is the other side's word on when, if it said."""

    reason = "retryable"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        reason: str | None = None,
        capacity: Capacity | None = None,
    ) -> None:
        """Say what failed and when to come back. `capacity` is what was missing: wait there to offer it again."""
        super().__init__(message, reason=reason)
        self.retry_after = retry_after
        self.capacity = capacity


class Overloaded(RetryableError):  # noqa: N818 - the name the design gives it; it reads as a state
    """There is no room now."""

    reason = "overloaded"
