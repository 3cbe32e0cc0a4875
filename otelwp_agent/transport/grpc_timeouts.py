"""How long each state of a gRPC connection may last."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from otelwp_agent.transport.http_timeouts import JITTER

if TYPE_CHECKING:
    from otelwp_agent.config import blocks

HANDSHAKE = 10.0
"""Maximum number of seconds for TLS, the preface, and each header block or frame that has begun to arrive."""
IDLE = 600.0
"""Seconds after which a connection without calls is closed, unless `keepalive` sets another value."""
WRITE = 30.0
"""Maximum number of seconds for which a client may leave answers unread, or give no window for them."""
DRAIN = 2.0
"""Maximum number of seconds for which a client may open calls after it has been asked to leave."""
ANSWER_TO_PING = 20.0
"""Seconds within which a ping must be answered, unless `keepalive` sets another value."""


class GrpcTimeouts:
    """Seconds for which each state of a connection may last; infinity is no limit."""

    __slots__ = ("_age", "age_grace", "answer_to_ping", "body", "header", "idle", "ping")

    def __init__(self, settings: blocks.GrpcServer) -> None:
        """Read the timeouts of `settings`, in which 0 is no limit."""
        keepalive = settings.keepalive
        limits = keepalive.server_parameters if keepalive is not None else None
        self.header = HANDSHAKE
        self.body = settings.read_timeout or math.inf
        self.idle = IDLE
        self.ping = self._age = self.age_grace = math.inf
        self.answer_to_ping = ANSWER_TO_PING
        if limits is not None:
            if limits.max_connection_idle is not None:
                self.idle = limits.max_connection_idle or math.inf
            self._age = limits.max_connection_age or math.inf
            self.age_grace = limits.max_connection_age_grace or math.inf
            self.ping = limits.time or math.inf
            self.answer_to_ping = limits.timeout or ANSWER_TO_PING

    def age(self) -> float:
        """Return the age at which a new connection is to be closed."""
        return self._age * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - a jitter, no secret
