"""Rules by site: `traffic > 10000/h → 0.001`, and the minimum that each site keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.sampling.consistent import ALWAYS, NEVER, threshold_near

if TYPE_CHECKING:
    from otelwp_agent.sampling.adaptive.policy import SiteRule

HALF_LIFE = 300.0
"""Seconds after which traffic that was seen counts half: rules speak of hours, and should not follow each wave."""
SETTLED = 60.0
"""Seconds that traffic is averaged over at least, so that a new site's first trace is no stampede."""


class SiteState:
    """What is known of one site."""

    __slots__ = ("cap", "count", "floor", "last_seen", "seconds", "seen", "traffic")

    def __init__(self, now: float) -> None:
        """Begin: no traffic, no rule."""
        self.seen = 0.0
        """Traces since the last tick, with those they stand for."""
        self.count = 0.0
        """Fading sums of traces, and of the seconds they came in."""
        self.seconds = 0.0
        self.traffic = 0.0
        """Traces a second."""
        self.cap = ALWAYS
        """T of the rules' probability, which is not exceeded."""
        self.floor = ALWAYS
        """T of the probability that gives the site its minimum; `NEVER` if it has none."""
        self.last_seen = now

    def measure(self, now: float, elapsed: float) -> None:
        """Bring the traffic up to date."""
        fades = 0.5 ** (elapsed / HALF_LIFE)
        self.count = self.count * fades + self.seen
        self.seconds = self.seconds * fades + elapsed
        self.traffic = self.count / max(self.seconds, SETTLED)
        if self.seen:
            self.last_seen = now
            self.seen = 0.0


class Sites:
    """All sites, at most `limit`; those that come after have no rules."""

    def __init__(self, rules: tuple[SiteRule, ...], minimum: float, limit: int, forget_after: float) -> None:
        """Begin without sites. `minimum`: traces a second that each keeps at least."""
        self._rules = rules
        self._minimum = minimum
        self._limit = limit
        self._forget_after = forget_after
        self.states: dict[str, SiteState] = {}

    def find(self, site: str, now: float) -> SiteState | None:
        """Return the state of a site, `None` if there are too many."""
        state = self.states.get(site)
        if state is None and len(self.states) < self._limit:
            state = self.states[site] = SiteState(now)
            self._judge(site, state)
        return state

    def measure(self, now: float, elapsed: float) -> None:
        """Bring all sites up to date, and forget those that are gone."""
        for site, state in self.states.items():
            state.measure(now, elapsed)
            self._judge(site, state)
        for site in [site for site, state in self.states.items() if state.last_seen < now - self._forget_after]:
            del self.states[site]

    def judge_all(self) -> None:
        """Apply the rules to what is known."""
        for site, state in self.states.items():
            self._judge(site, state)

    def _judge(self, site: str, state: SiteState) -> None:
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
