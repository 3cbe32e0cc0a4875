"""A request to the admin API and its answer, without the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request without its body. Header names are lower case; `peer` is an IP address, "" on a unix socket."""

    method: str
    target: str
    headers: Mapping[str, str]
    peer: str
    read: Callable[[], Awaitable[bytes]]
    """Returns the body; raises `ProblemError` if it is too large or arrives too slowly."""


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """The answer to a request."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
