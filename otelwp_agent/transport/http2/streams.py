"""One stream: a request and its response."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.transport.http2.frames import ErrorCode
    from otelwp_agent.transport.http2.peer_settings import PeerSettings
    from otelwp_agent.transport.http2.request_heads import RequestHead


STREAM_WINDOW = 256 * 1024
"""Bytes that a peer may send ahead on one stream. A message of this size arrives without waiting for us."""


class StreamOwner(Protocol):
    """A connection, as its streams see it."""

    @property
    def peer(self) -> PeerSettings:
        """The settings of the peer."""

    @property
    def streams(self) -> Mapping[int, Stream]:
        """The streams whose response is not complete, by identifier."""

    def respond(self, stream: Stream, start: bytes, body: bytes, trailers: bytes) -> None:
        """Send a response: two header blocks and the body between them. Do nothing if the stream has ended."""

    def respond_at_once(self, stream: Stream, block: bytes) -> None:
        """Send a response without a body: one header block. Do nothing if the stream has ended."""

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream without a response, or after it."""


class Stream:
    """A stream that is open or half closed. The server's own class inherits from it and answers the request.

    A request is answered with `connection.respond` once, at any time after `opened`; afterwards nothing is called.
    """

    __slots__ = (
        "arrived",
        "connection",
        "deadline",
        "ended",
        "head",
        "id",
        "left",
        "paused",
        "unacknowledged",
        "window",
    )

    def __init__(self, connection: StreamOwner, number: int, head: RequestHead) -> None:
        """Belong to `connection`, with the identifier `number`."""
        self.connection = connection
        self.id = number
        self.head = head
        self.ended = False
        """Whether the request is complete."""
        self.paused = False
        """Whether the peer gets no more window for this stream."""
        self.window = connection.peer.initial_window
        """Bytes that we may send."""
        self.left = STREAM_WINDOW
        """Bytes that the peer may send."""
        self.arrived = 0
        """Bytes of the body that have arrived, if the head has its length."""
        self.deadline = math.inf
        """Time at which `expire` is called."""
        self.unacknowledged = 0
        """Bytes that have arrived since the peer got window for this stream."""

    def opened(self) -> None:
        """Begin: the head has arrived. `ended` is set if there is no body."""
        raise NotImplementedError

    def received(self, data: bytes, start: int, stop: int) -> None:
        """Read the next part of the body, `data[start:stop]`. `ended` is set if it is the last part."""
        raise NotImplementedError

    def expire(self) -> None:
        """Answer or reset the stream: its deadline has passed."""
        raise NotImplementedError

    def aborted(self) -> None:
        """Give up: the peer has reset the stream, has broken a rule, or the connection is lost."""
        raise NotImplementedError
