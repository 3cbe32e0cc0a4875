"""Rules that keep traces independent of probability.

Such traces are: errors, slow traces, first traces of a key or release, debug requests. Each rule has a ceiling
(`guard.Limit`) that bounds its cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.sampling.adaptive.guard import Limit
from otelwp_agent.sampling.adaptive.trace import Reason

if TYPE_CHECKING:
    from otelwp_agent.sampling.adaptive.keys import KeyState
    from otelwp_agent.sampling.adaptive.policy import Ceiling, Policy


class AlwaysKept:
    """The rules of `policy.always`, each with its ceiling; `None` where the policy does not use a rule."""

    def __init__(self, policy: Policy, now: float) -> None:
        """Start with unused ceilings; `now` is seconds on the controller's clock."""
        always, budget = policy.always, policy.budget
        slow, first = always.slow, always.first

        def limit(reason: Reason, ceiling: Ceiling | None) -> Limit | None:
            return None if ceiling is None else Limit(reason, ceiling, budget, now)

        self.debug = limit(Reason.DEBUG, always.debug)
        self.errors = limit(Reason.ERROR, always.errors)
        self.slow = limit(Reason.SLOW, slow.ceiling if slow else None)
        self.first = limit(Reason.FIRST_SEEN, first.ceiling if first and first.traces else None)
        self.release = limit(Reason.RELEASE, first.ceiling if first and first.release_traces else None)
        if self.first is not None and self.release is not None:
            self.release.share(self.first)
        self.site_minimum = limit(Reason.SITE_MINIMUM, policy.site_ceiling if policy.site_minimum else None)
        limits = (self.debug, self.errors, self.slow, self.first, self.release, self.site_minimum)
        self.limits = [each for each in limits if each is not None]
        self.first_traces = first.traces if first else 0
        """Number of traces of each key that are kept as its first."""
        self._release_traces = first.release_traces if first else 0
        self._max_releases = policy.max_releases
        self.releases: dict[str, list[float]] = {}
        """By release: how many of its traces were kept as its first, and when it was last seen."""

    def limit_for(  # noqa: PLR0913 - the fields of a trace; called for every trace, an object would cost more
        self, state: KeyState, duration: float, release: str, now: float, *, error: bool, debug: bool, other: bool
    ) -> Limit | None:
        """Return the ceiling of the first rule that applies to a trace, `None` if none does.

        `other`: whether `state` is shared by all keys beyond `max_keys`; then none of its traces is the first of a key.
        """
        if debug and self.debug is not None:
            return self.debug
        if error and self.errors is not None:
            return self.errors
        if duration > state.slow_above and self.slow is not None:
            return self.slow
        if state.firsts < self.first_traces and not other:
            state.firsts += 1
            return self.first
        if self.release is not None and release and self.is_new_release(release, now):
            return self.release
        return None

    def is_new_release(self, release: str, now: float) -> bool:
        """Count a trace of `release`; return whether it is among the first traces of that release."""
        known = self.releases.get(release)
        if known is None:
            if len(self.releases) >= self._max_releases:
                del self.releases[min(self.releases, key=lambda name: self.releases[name][1])]
            known = self.releases[release] = [0, now]
        known[1] = now
        if known[0] >= self._release_traces:
            return False
        known[0] += 1
        return True
