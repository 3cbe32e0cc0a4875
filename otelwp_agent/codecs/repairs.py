"""Count and report what decoders have repaired in invalid spans, so that the sender can be corrected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from otelwp_agent.model.site import UNKNOWN, Sites
from otelwp_agent.telemetry.metrics import Counter, Instrument, Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    import structlog

    from otelwp_agent.errors import ConsumeError

REPAIRS = Instrument(
    "otelwp_receiver_mended",
    "Repairs of invalid spans, by kind and site.",
    labels=("receiver", "kind", "site"),
)

MAX_SENDERS = 1024
"""Maximum number of senders with a cached site; when it is reached, all are removed."""


class Decoded(Protocol):
    """The result of a decoder besides the spans."""

    @property
    def repairs(self) -> Mapping[str, int]:
        """Number of repairs by kind."""

    @property
    def service(self) -> str:
        """The name of the first service."""


class Repairs:
    """Counts repairs by kind and site, and logs each combination once."""

    __slots__ = ("_counters", "_log", "_receiver", "_registry", "_reported", "_senders", "_sites")

    def __init__(self, receiver: str, log: structlog.typing.FilteringBoundLogger, registry: Registry) -> None:
        """Count for the component `receiver`."""
        self._receiver = receiver
        self._log = log
        self._registry = registry
        self._sites = Sites()
        self._counters: dict[str, dict[str, Counter]] = {}
        """Counters by site and kind."""
        self._senders: dict[tuple[str, str], tuple[str, dict[str, Counter]]] = {}
        """Sites and their counters by User-Agent and service."""
        self._reported: set[str] = set()

    def add(self, decoded: Decoded, user_agent: str = "") -> None:
        """Count the repairs of `decoded`."""
        sender = user_agent, decoded.service
        known = self._senders.get(sender)
        if known is None:
            site = self._site(*sender)
            if len(self._senders) >= MAX_SENDERS:
                self._senders.clear()
            known = self._senders[sender] = site, self._counters.setdefault(site, {})
        site, counters = known
        fresh = {}
        for kind, times in decoded.repairs.items():
            counter = counters.get(kind)
            if counter is None:
                counter = self._registry.counter(REPAIRS, receiver=self._receiver, kind=kind, site=site)
                counters[kind] = counter
                fresh[kind] = times
            counter.value += times
        if fresh:
            self._log.warning("spans repaired", site=site, kinds=fresh)

    def report_refused(self, user_agent: str, error: ConsumeError) -> None:
        """Log, once for each site, that its requests cannot be used."""
        site = self._site(user_agent, "")
        if site not in self._reported:
            self._reported.add(site)
            self._log.error("request refused after it was accepted", site=site, reason=str(error))

    def _site(self, user_agent: str, service: str) -> str:
        site = self._sites.name(user_agent)
        return self._sites.keep(service[:128]) if site == UNKNOWN and service else site
