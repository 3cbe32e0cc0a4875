"""Read the frames that carry no request: PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE."""

# The functions have the arguments of every frame.
# ruff: noqa: PLR0913, PLR0917

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.transport.http2 import floods, frames
from otelwp_agent.transport.http2.frames import (
    ACK,
    MAX_STREAM,
    MAX_WINDOW,
    ConnectionViolationError,
    ErrorCode,
    StreamViolationError,
)
from otelwp_agent.transport.http2.pings import DRAIN

if TYPE_CHECKING:
    from otelwp_agent.transport.http2.connection_state import ConnectionState

_PRIORITY_SIZE = 5
_NUMBER_SIZE = 4
_PING_SIZE = 8
_GOAWAY_SIZE = 8


def read_priority(state: ConnectionState, _flags: int, number: int, data: bytes, start: int, stop: int) -> None:
    """Check a PRIORITY frame and ignore it: priorities have no effect (RFC 9113, 5.3)."""
    if not number:
        raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
    if stop - start != _PRIORITY_SIZE:
        raise StreamViolationError(number, ErrorCode.FRAME_SIZE_ERROR)
    if int.from_bytes(data[start : start + _NUMBER_SIZE], "big") & MAX_STREAM == number:
        raise StreamViolationError(number, ErrorCode.PROTOCOL_ERROR)
    state.floods.spend(floods.CHEAP)


def read_reset(state: ConnectionState, _flags: int, number: int, _data: bytes, start: int, stop: int) -> None:
    """Give up a stream."""
    if stop - start != _NUMBER_SIZE:
        raise ConnectionViolationError(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has 4 bytes")
    if not number or number > state.last:
        raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on a stream that was not opened")
    state.floods.spend(floods.ANSWERED)
    stream = state.streams.pop(number, None)
    if stream is not None:
        state.blocked.pop(number, None)
        stream.aborted()


def read_settings(state: ConnectionState, flags: int, number: int, data: bytes, start: int, stop: int) -> None:
    """Apply the peer's settings and acknowledge them."""
    if number:
        raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
    if flags & ACK:
        if start != stop:
            raise ConnectionViolationError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS with ACK has a payload")
        state.floods.spend(floods.CHEAP)
        return
    state.floods.spend(floods.SETTINGS_COST)
    before = state.peer.initial_window
    state.peer.update(data[start:stop])
    state.out.append(frames.SETTINGS_ACK)
    state.widen_all(state.peer.initial_window - before)


def read_ping(state: ConnectionState, flags: int, number: int, data: bytes, start: int, stop: int) -> None:
    """Answer a ping, or note the answer to one of ours."""
    if number:
        raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
    if stop - start != _PING_SIZE:
        raise ConnectionViolationError(ErrorCode.FRAME_SIZE_ERROR, "PING has 8 bytes")
    state.floods.spend(floods.ANSWERED)
    payload = data[start:stop]
    if not flags & ACK:
        state.out.append(frames.ping(payload, ack=True))
        state.pings.arrived(busy=bool(state.streams), sent=state.sent)
        state.sent = False
    elif payload == DRAIN and state.draining:
        state.finish_drain()


def read_window_update(state: ConnectionState, _flags: int, number: int, data: bytes, start: int, stop: int) -> None:
    """Send more, if something waits."""
    if stop - start != _NUMBER_SIZE:
        raise ConnectionViolationError(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has 4 bytes")
    if number > state.last:
        raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that was not opened")
    state.floods.spend(floods.CHEAP)
    state.widen(number, int.from_bytes(data[start:stop], "big") & MAX_WINDOW)


def read_goaway(state: ConnectionState, _flags: int, number: int, _data: bytes, start: int, stop: int) -> None:
    """Close after the responses to the open streams: the client opens no more."""
    if number:
        raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
    if stop - start < _GOAWAY_SIZE:
        raise ConnectionViolationError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has 8 bytes or more")
    state.floods.spend(floods.ANSWERED)
    state.draining = True
    if state.final is None:
        state.final = state.last


def read_push(_state: ConnectionState, _flags: int, _number: int, _data: bytes, _start: int, _stop: int) -> None:
    """Refuse a promise: clients must not push (RFC 9113, 8.4)."""
    raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "a client must not push")
