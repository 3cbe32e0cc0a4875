"""Every error that the agent raises on purpose.

::

    AgentError
    ├── ConfigError(problems)         the configuration is invalid; lists all problems with their positions
    ├── LoadError                     the package of a third-party component is broken
    ├── StartError(component, ...)    a component cannot start (a port in use, a missing file)
    └── ConsumeError                  a batch was not accepted; its caller keeps all of it
        ├── PermanentError            sending the same bytes again would fail again
        │   ├── MalformedError        ... because the bytes are not valid in their format
        │   ├── UnauthenticatedError  ... because the sender has no valid credential
        │   ├── ForbiddenError        ... because this sender may not send them
        │   └── TooLargeError         ... because they are too many at once: smaller parts may be accepted
        ├── InternalError             a component has a bug, which has been logged under its id
        └── RetryableError(retry_after)   the same bytes may be accepted later
            └── Overloaded            ... because there is no capacity now
                └── RateLimitedError  ... because the sender has used up a configured limit
                    └── ThrottledError    ... and gets another status

Only the module `transport.status` maps these to HTTP and gRPC.
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
    """Severity of a configuration problem."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a configuration, with a message that says what is wrong and what would be right.

    `file`, `line` and `column` are its position (line and column start at 1; 0 is unknown); `path` is the dotted path
    of the key.
    """

    message: str
    path: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        """Return `file:line:column: path: message`, without the unknown parts."""
        place = ":".join(str(part) for part in (self.file, self.line or "", self.column or "") if part)
        head = ": ".join(part for part in (place, self.path) if part)
        text = f"{head}: {self.message}" if head else self.message
        return f"warning: {text}" if self.severity is Severity.WARNING else text


class ConfigError(AgentError):
    """The configuration is invalid; `problems` lists all its problems, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep `problems`, in the order in which they are printed."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class LoadError(AgentError):
    """The package of a third-party component cannot be loaded; the message names the component and the package."""


class StartError(AgentError):
    """A component cannot start; the message names the component and what to do."""


class ConsumeError(AgentError):
    """A batch was not accepted.

    The component that raises this has kept nothing of the batch and settled none of its receipts: the caller remains
    responsible for both. `reason` is a short constant for metric labels.
    """

    reason = "error"
    items = 0
    """Number of items that a receiver could not forward; 0 until they have been counted."""

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        """Describe what is wrong; `reason` replaces the metric label of the class."""
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class PermanentError(ConsumeError):
    """Sending the same bytes again would fail again."""

    reason = "permanent"


class MalformedError(PermanentError):
    """The bytes are not valid in their format."""

    reason = "malformed"


class UnauthenticatedError(PermanentError):
    """The sender has no valid credential.

    The message is always the same: it must not reveal which part of a credential was wrong. `challenges` are the values
    of the header `WWW-Authenticate`, which names the accepted schemes (RFC 9110, 11.6.1).
    """

    reason = "unauthenticated"

    def __init__(self, *challenges: str) -> None:
        """Refuse with these challenges."""
        super().__init__("a valid credential is needed")
        self.challenges = challenges


class ForbiddenError(PermanentError):
    """This sender may not send the request; another credential or address would be needed."""

    reason = "forbidden"


class TooLargeError(PermanentError):
    """There are too many bytes or items at once; smaller parts may be accepted."""

    reason = "too_large"


class InternalError(ConsumeError):
    """A component raised something else than a `ConsumeError`: a bug, which was logged under the component's id."""

    reason = "internal"


class RetryableError(ConsumeError):
    """The same bytes may be accepted later; `retry_after` is the wait that the backend requested, in seconds."""

    reason = "retryable"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        reason: str | None = None,
        capacity: Capacity | None = None,
    ) -> None:
        """Describe what failed and when to retry; wait at `capacity`, the one that was missing, to offer it again."""
        super().__init__(message, reason=reason)
        self.retry_after = retry_after
        self.capacity = capacity


class Overloaded(RetryableError):  # noqa: N818 - the name of a state, used throughout the design
    """There is no capacity now.

    `tenant` is set if there is no more for this tenant only, because it uses its share of the capacity.
    """

    reason = "overloaded"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        reason: str | None = None,
        capacity: Capacity | None = None,
        tenant: str = "",
    ) -> None:
        """Describe what is full and when to retry; `tenant` is the one whose share is used up."""
        super().__init__(message, retry_after=retry_after, reason=reason, capacity=capacity)
        self.tenant = tenant


class RateLimitedError(Overloaded):
    """The sender has used up a configured limit.

    `quota` units may be used at once, `remaining` of them are left, and after `reset_after` seconds all are available
    again. One error may be raised for several requests: `rendered` keeps the responses made of it.
    """

    reason = "rate_limited"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float,
        quota: float,
        remaining: float = 0.0,
        reset_after: float = 0.0,
    ) -> None:
        """Name the limit in `message`; the request would be accepted after `retry_after` seconds."""
        super().__init__(message, retry_after=retry_after)
        self.quota = quota
        self.remaining = remaining
        self.reset_after = reset_after
        self.rendered: dict[object, object] = {}


class ThrottledError(RateLimitedError):
    """The same, for senders that take 429 as permanent: their answer is that the service is unavailable (503)."""


def refusal_for(tenant: str, error: ConsumeError) -> ConsumeError:
    """Return the error to report to a sender of `tenant`: `Overloaded` only if that tenant is the cause.

    So a tenant sees whether it must send less (429) or wait for the agent (503). Senders without a tenant get `error`
    itself, and so does a tenant that has used up a configured limit.
    """
    if not tenant or not isinstance(error, Overloaded) or error.tenant == tenant or isinstance(error, RateLimitedError):
        return error
    reported = RetryableError(str(error), retry_after=error.retry_after, reason=error.reason, capacity=error.capacity)
    reported.items = error.items
    return reported
