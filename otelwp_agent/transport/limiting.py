"""Contract of rate limiters: how many requests, items and bytes a server accepts from one sender.

A limiter is asked three times about a request. `check` is called with the address alone, before authentication;
`RequestAllowance.begin` before the body is read; `RequestAllowance.charge` when the items are counted, before a
pipeline accepts them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.transport.authentication import Client


# Methods that a limiter may leave out do nothing.
# ruff: noqa: B027


@dataclass(frozen=True, slots=True)
class Left:
    """The rest of a sender's limit: `limit` at once, `remaining` now, and all of it after `reset_after` seconds."""

    limit: float
    remaining: float
    reset_after: float


class RequestAllowance(ABC):
    """Limits of one client that sends from one address to one route. It is kept and used for many requests."""

    @abstractmethod
    def begin(self) -> ConsumeError | None:
        """Count a request, also as one in progress, and return `None`; or count nothing and return the error.

        The error is `Overloaded`, with the exact wait and the name of the limit, or `ForbiddenError`. It is returned,
        because raising it takes longer than the decision, and a flood is refused at the highest rate. The same error
        may be returned for several requests.
        """

    def end(self) -> None:
        """Note that a request is no longer in progress. Called exactly once after each `begin` that counted one."""

    def withdraw(self) -> None:
        """Take back a `begin` that counted a request, instead of `end`: it is refused for another reason."""
        self.end()

    def charge(self, items: int, size: int) -> None:
        """Count `items` items in `size` bytes (decompressed, as protobuf), or raise `Overloaded` and count nothing."""

    def refund(self, items: int, size: int) -> None:
        """Take back a `charge`: the request was refused for another reason."""

    def left(self) -> Left | None:
        """Return the items that may still be sent now; `None` without a limit of items."""
        return None


class RequestLimiter(ABC):
    """Limits the requests of servers. Called on the event loop before a body is read: it must do no I/O."""

    def check(self, peer: str) -> None:
        """Raise `ForbiddenError` or `Overloaded` if no request of this address is accepted, with any credential.

        Called before authentication, so that it costs nothing for banned addresses. `peer` is an IP address, "" on a
        unix socket.
        """

    @abstractmethod
    def allowance(self, client: Client | None, peer: str, route: str) -> RequestAllowance:
        """Return the allowance for requests of `client` (`None`: not authenticated) from `peer`.

        `route` is the path, or the method of gRPC (`/package.Service/Method`).
        """

    def authentication_failed(self, peer: str, error: ConsumeError) -> None:
        """Note that a request of this address was refused with an `UnauthenticatedError` or a `ForbiddenError`."""


class CombinedAllowance(RequestAllowance):
    """The allowances of several limiters; a request needs all of them."""

    def __init__(self, parts: Sequence[RequestAllowance]) -> None:
        """Ask `parts` in this order."""
        self._parts = parts

    def begin(self) -> ConsumeError | None:
        """Count a request in all parts, or in none."""
        for index, part in enumerate(self._parts):
            try:
                refusal = part.begin()
            except BaseException:
                self._withdraw(index)
                raise
            if refusal is not None:
                self._withdraw(index)
                return refusal
        return None

    def end(self) -> None:
        """End a request in all parts."""
        for part in self._parts:
            part.end()

    def withdraw(self) -> None:
        """Withdraw a request from all parts."""
        self._withdraw(len(self._parts))

    def charge(self, items: int, size: int) -> None:
        """Count items in all parts, or in none."""
        for index, part in enumerate(self._parts):
            try:
                part.charge(items, size)
            except BaseException:
                for counted in self._parts[:index]:
                    counted.refund(items, size)
                raise

    def refund(self, items: int, size: int) -> None:
        """Take back a charge in all parts."""
        for part in self._parts:
            part.refund(items, size)

    def left(self) -> Left | None:
        """Return the rest of the strictest limit."""
        found = [left for part in self._parts if (left := part.left()) is not None]
        return min(found, key=lambda left: left.remaining, default=None)

    def _withdraw(self, count: int) -> None:
        for part in self._parts[:count]:
            part.withdraw()
