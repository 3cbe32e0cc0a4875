"""Count refused requests in the same way for every receiver and transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.telemetry.metrics import Instrument

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.telemetry.metrics import Counter, Registry

REFUSED_REQUESTS = Instrument(
    "otelwp_receiver_refused_requests",
    "Requests refused, by reason: malformed, too_large, unknown_encoding, overloaded, memory, timeout, …",
    labels=("receiver", "transport", "reason"),
)


def refusals(registry: Registry, receiver: str, transport: str) -> Callable[[str], None]:
    """Return a function that counts a refusal by its reason, which is one of a few constants."""
    counters: dict[str, Counter] = {}

    def count(reason: str) -> None:
        counter = counters.get(reason)
        if counter is None:
            counter = counters[reason] = registry.counter(
                REFUSED_REQUESTS, receiver=receiver, transport=transport, reason=reason
            )
        counter.value += 1

    return count
