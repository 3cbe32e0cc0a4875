"""Rules by site, such as `traffic > 10000/h → 0.001`, and the minimum that each site keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.sampling.consistent import ALWAYS, NEVER, threshold_near

if TYPE_CHECKING:
    from otelwp_agent.sampling.adaptive.policy import SiteRule

HALF_LIFE = 300.0
"""Half-life in seconds of measured traffic: rules are per hour, and should not follow short waves."""
SETTLED = 60.0
"""Minimum seconds of the average, so that the first trace of a new site does not look like heavy traffic."""


class SiteState:
    """The measurements of one site."""

    __slots__ = ("cap", "count", "floor", "last_seen", "seconds", "seen", "traffic")

    def __init__(self, now: float) -> None:
        """Start without traffic and rules."""
        self.seen = 0.0
        """Sum of the adjusted counts of traces since the last tick."""
        self.count = 0.0
        """Decaying sum of traces; `seconds` is the decaying sum of their time."""
        self.seconds = 0.0
        self.traffic = 0.0
        """Traces a second."""
        self.cap = ALWAYS
        """T of the highest probability that the rules allow."""
        self.floor = ALWAYS
        """T of the probability that gives the site its minimum; `NEVER` without a minimum."""
        self.last_seen = now

    def measure(self, now: float, elapsed: float) -> None:
        """Update the traffic."""
        fades = 0.5 ** (elapsed / HALF_LIFE)
        self.count = self.count * fades + self.seen
        self.seconds = self.seconds * fades + elapsed
        self.traffic = self.count / max(self.seconds, SETTLED)
        if self.seen:
            self.last_seen = now
            self.seen = 0.0


class SiteTable:
    """All sites, at most `limit`; no rules apply to further ones."""

    def __init__(self, rules: tuple[SiteRule, ...], minimum: float, limit: int, forget_after: float) -> None:
        """Start without sites. `minimum`: traces a second that each site keeps at least."""
        self._rules = rules
        self._minimum = minimum
        self._limit = limit
        self._forget_after = forget_after
        self.states: dict[str, SiteState] = {}

    def find(self, site: str, now: float) -> SiteState | None:
        """Return the state of a site, `None` if there are too many sites."""
        state = self.states.get(site)
        if state is None and len(self.states) < self._limit:
            state = self.states[site] = SiteState(now)
            self._apply_rules(site, state)
        return state

    def measure(self, now: float, elapsed: float) -> None:
        """Update all sites and remove those without traffic for too long."""
        for site, state in self.states.items():
            state.measure(now, elapsed)
            self._apply_rules(site, state)
        for site in [site for site, state in self.states.items() if state.last_seen < now - self._forget_after]:
            del self.states[site]

    def apply_rules(self) -> None:
        """Apply the rules to all sites."""
        for site, state in self.states.items():
            self._apply_rules(site, state)

    def _apply_rules(self, site: str, state: SiteState) -> None:
        caps = [
            rule.probability
            for rule in self._rules
            if (rule.sites is None or site in rule.sites) and (state.traffic > rule.above or not rule.above)
        ]
        state.cap = threshold_near(min(caps, default=1.0))
        if not self._minimum:
            state.floor = NEVER
        elif state.traffic <= self._minimum:
            state.floor = ALWAYS
        else:
            state.floor = threshold_near(self._minimum / state.traffic)
