"""Messages of OpAMP over WebSocket: a header, which is a varint with the value 0, then the serialized message; pure."""

from __future__ import annotations

from otelwp_agent.errors import MalformedError

HEADER = b"\0"


def frame(message: bytes) -> bytes:
    """Return a WebSocket message with its header."""
    return HEADER + message


def unframe(data: bytes) -> bytes:
    """Return the serialized message in a WebSocket message; raise `MalformedError` for another header.

    Agents of the first versions of OpAMP send no header. Their messages begin with a tag, which is never 0.
    """
    if not data:
        raise MalformedError("the WebSocket message is empty: send a header (one byte 0) and an AgentToServer message")
    return data[1:] if data[:1] == HEADER else data
