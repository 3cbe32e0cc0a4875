"""The settings of the peer (RFC 9113, section 6.5.2)."""

from __future__ import annotations

import struct

from otelwp_agent.transport.http2.frames import (
    DEFAULT_WINDOW,
    MAX_MAX_FRAME,
    MAX_WINDOW,
    MIN_MAX_FRAME,
    ConnectionViolationError,
    ErrorCode,
)

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)
MAX_SETTINGS = 64
"""Maximum number of settings in one frame; there are ten or so."""


class PeerSettings:
    """Limits of the peer. Settings about our header tables have no effect: our blocks do not use a dynamic table."""

    __slots__ = ("initial_window", "max_frame")

    def __init__(self) -> None:
        """Start with the defaults."""
        self.initial_window = DEFAULT_WINDOW
        self.max_frame = MIN_MAX_FRAME

    def update(self, payload: bytes) -> None:
        """Apply the payload of a SETTINGS frame; raise `ConnectionViolationError`."""
        if len(payload) % 6:
            raise ConnectionViolationError(ErrorCode.FRAME_SIZE_ERROR, "the settings are cut short")
        if len(payload) > 6 * MAX_SETTINGS:
            raise ConnectionViolationError(ErrorCode.ENHANCE_YOUR_CALM, "too many settings in one frame")
        for name, value in struct.iter_unpack(">HI", payload):
            if name == INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise ConnectionViolationError(ErrorCode.FLOW_CONTROL_ERROR, "the initial window is too large")
                self.initial_window = value
            elif name == MAX_FRAME_SIZE:
                if not MIN_MAX_FRAME <= value <= MAX_MAX_FRAME:
                    raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "the maximum frame size is out of range")
                self.max_frame = value
            elif name == ENABLE_PUSH and value > 1:
                raise ConnectionViolationError(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
