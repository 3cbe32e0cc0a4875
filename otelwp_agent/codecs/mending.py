"""What decoders put right in spans that were not as they should be, told to whoever can have it put right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from otelwp_agent.model.site import UNKNOWN, Sites
from otelwp_agent.telemetry.metrics import Counter, Instrument, Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    import structlog

    from otelwp_agent.errors import ConsumeError

MENDED = Instrument(
    "otelwp_receiver_mended",
    "What was put right in spans that were not as they should be, by kind and site.",
    labels=("receiver", "kind", "site"),
)

MAX_SENDERS = 1024
"""Senders whose site is remembered; when full, they are all forgotten."""


class Decoded(Protocol):
    """What a decoder tells beside the spans."""

    @property
    def mended(self) -> Mapping[str, int]:
        """What was put right, and how often."""

    @property
    def service(self) -> str:
        """The name of the first service."""


class Mended:
    """Counts what was put right by kind and site, and says so in the log once for each."""

    __slots__ = ("_counters", "_log", "_receiver", "_registry", "_senders", "_sites", "_told")

    def __init__(self, receiver: str, log: structlog.typing.FilteringBoundLogger, registry: Registry) -> None:
        """Count for the component `receiver`."""
        self._receiver = receiver
        self._log = log
        self._registry = registry
        self._sites = Sites()
        self._counters: dict[str, dict[str, Counter]] = {}
        """By site and kind."""
        self._senders: dict[tuple[str, str], tuple[str, dict[str, Counter]]] = {}
        """Sites and their counters by User-Agent and service."""
        self._told: set[str] = set()

    def add(self, decoded: Decoded, user_agent: str = "") -> None:
        """Enter what was mended in `decoded`."""
        sender = user_agent, decoded.service
        known = self._senders.get(sender)
        if known is None:
            site = self._site(*sender)
            if len(self._senders) >= MAX_SENDERS:
                self._senders.clear()
            known = self._senders[sender] = site, self._counters.setdefault(site, {})
        site, counters = known
        fresh = {}
        for kind, times in decoded.mended.items():
            counter = counters.get(kind)
            if counter is None:
                counter = counters[kind] = self._registry.counter(MENDED, receiver=self._receiver, kind=kind, site=site)
                fresh[kind] = times
            counter.value += times
        if fresh:
            self._log.warning("spans mended", site=site, kinds=fresh)

    def tell(self, user_agent: str, error: ConsumeError) -> None:
        """Say once for each sender that what it sends cannot be used."""
        site = self._site(user_agent, "")
        if site not in self._told:
            self._told.add(site)
            self._log.error("request refused after it was accepted", site=site, reason=str(error))

    def _site(self, user_agent: str, service: str) -> str:
        site = self._sites.name(user_agent)
        return self._sites.keep(service[:128]) if site == UNKNOWN and service else site
