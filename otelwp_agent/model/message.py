"""`Message`: the identity of a request whose sender may send it again, so that it is processed once."""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """A request of `tenant` to `receiver`, with the id that its sender gave it."""

    receiver: str
    tenant: str
    message_id: bytes
    time: int
    """When it was sent, in milliseconds since 1970."""
