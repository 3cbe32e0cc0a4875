"""How long each state of an HTTP connection may last."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelwp_agent.config import blocks


class ConnectionTimeouts:
    """Seconds for which each state of a connection may last; infinity is no limit."""

    __slots__ = ("body", "header", "idle", "write")

    def __init__(self, settings: blocks.HttpServer) -> None:
        """Read the timeouts of `settings`, in which 0 is no limit."""
        self.header = settings.read_header_timeout or settings.read_timeout or math.inf
        self.body = settings.read_timeout or math.inf
        self.write = settings.write_timeout or math.inf
        self.idle = settings.idle_timeout or settings.read_timeout or math.inf
