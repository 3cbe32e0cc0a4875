"""How long each state of an HTTP connection may last."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelwp_agent.config import blocks


JITTER = 0.1
"""Part of its maximum age by which the age of a connection varies, so that connections opened together do not close
together; the same as in gRPC."""


class ConnectionTimeouts:
    """Seconds for which each state of a connection may last; infinity is no limit."""

    __slots__ = ("_age", "age_grace", "body", "header", "idle", "write")

    def __init__(self, settings: blocks.HttpServer) -> None:
        """Read the timeouts of `settings`, in which 0 is no limit."""
        self.header = settings.read_header_timeout or settings.read_timeout or math.inf
        self.body = settings.read_timeout or math.inf
        self.write = settings.write_timeout or math.inf
        self.idle = settings.idle_timeout or settings.read_timeout or math.inf
        self._age = settings.max_connection_age or math.inf
        self.age_grace = settings.max_connection_age_grace

    def age(self) -> float:
        """Return the age at which a new connection is to be closed."""
        return self._age * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - a jitter, no secret
