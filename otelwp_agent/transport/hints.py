"""Hints to senders, in headers of answers: how much to send, how much they may still send, and newer configurations.

The exporter `managed` and the WordPress plugin read them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelwp_agent.transport.authentication import Client
    from otelwp_agent.transport.limiting import RequestAllowance

SAMPLING_RATE, TRACES_PER_SECOND = "X-OTelWP-Sampling-Rate", "X-OTelWP-Traces-Per-Second"
"""The most to send: a part of all traces (0 to 1), and traces per second."""
CONFIGURATION = "X-OTelWP-Configuration"
"""Version of the configuration that senders should have."""
LIMIT, REMAINING, RESET = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"
"""The rest of a sender's limit: items at once, items left, and seconds until all are available again."""
DUPLICATE = ("X-OTelWP-Duplicate", "true")
"""Marks the answer to a request that was accepted before."""

_OF_PLAN = {"sampling_rate": SAMPLING_RATE, "traces_per_second": TRACES_PER_SECOND, "configuration": CONFIGURATION}

HeaderPairs = tuple[tuple[str, str], ...]


def plan_hints(client: Client | None) -> HeaderPairs:
    """Return the hints in the plan of a client's tenant. They do not change before the client does."""
    if client is None or not client.limits:
        return ()
    return tuple([(name, f"{client.limits[limit]:.10g}") for limit, name in _OF_PLAN.items() if limit in client.limits])


def limit_hints(allowance: RequestAllowance | None) -> HeaderPairs:
    """Return the items that a sender may still send now."""
    left = None if allowance is None else allowance.left()
    if left is None:
        return ()
    return (
        (LIMIT, str(math.floor(left.limit))),
        (REMAINING, str(math.floor(left.remaining))),
        (RESET, str(math.ceil(left.reset_after))),
    )
