"""Decide which traces are kept: within a budget, with all that matters, and so that what is kept can be counted.

Per key (the values of `per`) the traffic is measured, and the budget shared among keys (sharing.py): that gives each
key a probability, which is a threshold that the trace's randomness has to reach. Between ticks the account (account.py)
makes all probabilities smaller when more is spent than planned.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from otelwp_agent.sampling.adaptive.account import Account, Limit
from otelwp_agent.sampling.adaptive.estimates import Estimate, Tally
from otelwp_agent.sampling.adaptive.histogram import bucket_of
from otelwp_agent.sampling.adaptive.keys import Keys, KeyState
from otelwp_agent.sampling.adaptive.policy import Unit
from otelwp_agent.sampling.adaptive.sharing import share
from otelwp_agent.sampling.adaptive.sites import Sites
from otelwp_agent.sampling.adaptive.state import restore, state_of
from otelwp_agent.sampling.adaptive.trace import Decision, Reason
from otelwp_agent.sampling.consistent import ALWAYS, NEVER, adjusted_count, lowered, probability_of, threshold_near

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelwp_agent.sampling.adaptive.policy import Ceiling, Policy
    from otelwp_agent.sampling.adaptive.trace import Key, Trace

STEER = 10.0
"""Seconds in which the tokens are steered back to half full: what was spent too little or too much is made up for."""
LEAST_SHARE = 0.02
"""Of the budget, which is left to chance even if what is always kept takes more than the rest."""
CERTAIN_HALF_LIFE = 3.0
"""Seconds after which what was kept for certain counts half in the plan."""
HURRY, HURRY_KEY = 0.2, 1e-4
"""Seconds, and more for each key, after which an overdrawn account has the probabilities computed anew, before the next
tick. A tick costs 2 µs a key: that is some 2 % of the time at most."""
NEW_KEY_EVERY = 60.0
"""Seconds between the traces of a key that nothing is known of, as far as one plans."""
SHORTEST_TICK = 0.1
"""Seconds; ticks that come sooner after the last are nothing to measure by."""
ESTIMATES_WINDOW = 300.0
"""Seconds; reports are of the last one to two of them."""
LEARN_ALL, LEARN_SOME = 1024, 0b111
"""Durations are learned of the first so many traces of a key in a window; then of those with none of these bits, which
are the lowest of the randomness and have no say in what is kept."""

# An enumeration's member costs more to look up than a module's name, and each trace needs some.
_BUDGET, _SITE_RULE, _SITE_MINIMUM = Reason.BUDGET, Reason.SITE_RULE, Reason.SITE_MINIMUM
_INCOMING, _GUARD = Reason.INCOMING, Reason.GUARD
_SPANS, _BYTES = Unit.SPANS, Unit.BYTES


class Report(NamedTuple):
    """Error bars of one key."""

    seconds: float
    """How long a time it speaks of."""
    traces: Estimate
    """All there were, kept or not; divide by `seconds` for the rate."""
    error_ratio: Estimate
    percentiles: dict[float, Estimate]
    """Durations in seconds, by percentile."""


class Controller:
    """Takes decisions. `now` is any clock in seconds that does not go back."""

    def __init__(self, policy: Policy, now: float) -> None:
        """Begin, knowing nothing: every key is kept whole until the first tick, or until the account says no."""
        self.policy = policy
        always = policy.always
        slow = always.slow
        fixed = math.inf if slow is None or slow.above is None else slow.above
        self._fixed = fixed
        self._quantile = 0.0 if slow is None or slow.percentile is None else slow.percentile / 100
        self._min_samples = slow.min_samples if slow else 0
        budget = policy.budget
        counted = budget or policy.key_budget
        self._unit = counted.unit if counted else Unit.TRACES
        self.account = None if budget is None else Account(budget.rate, now)
        first = always.first

        def limit(reason: Reason, ceiling: Ceiling | None) -> Limit | None:
            return None if ceiling is None else Limit(reason, ceiling, budget, now)

        self._debug = limit(Reason.DEBUG, always.debug)
        self._errors = limit(Reason.ERROR, always.errors)
        self._slow = limit(Reason.SLOW, slow.ceiling if slow else None)
        self._first = limit(Reason.FIRST_SEEN, first.ceiling if first and first.traces else None)
        self._release = limit(Reason.RELEASE, first.ceiling if first and first.release_traces else None)
        if self._first is not None and self._release is not None:
            self._release.share(self._first)
        self._minimum = limit(Reason.SITE_MINIMUM, policy.site_ceiling if policy.site_minimum else None)
        limits = (self._debug, self._errors, self._slow, self._first, self._release, self._minimum)
        self.limits = [each for each in limits if each is not None]
        """What is always kept, each with its ceiling."""
        self._first_traces = first.traces if first else 0
        self._release_traces = first.release_traces if first else 0
        self._has_sites = bool(policy.site_rules or policy.site_minimum)
        self.key_states = Keys(policy.max_keys, policy.forget_after, fixed, now)
        self.sites = Sites(policy.site_rules, policy.site_minimum, policy.max_sites, policy.forget_after)
        self.releases: dict[str, list[float]] = {}
        """Of each release: how many of its traces were kept as the first, and when it was last seen."""
        self.guarded = 0
        """Traces dropped because a minute's budget was spent."""
        self.certain = 0.0
        """What was kept for certain since the last tick costs; `certain_rate`: a second, in the mean."""
        self.certain_rate = 0.0
        self.ticked = now
        self._hurry = HURRY
        self._lowered_at = math.nan
        self._lowering = 1.0
        """By how much an account that is low multiplies probabilities, at a level of its tokens."""
        self.window_began = self.window_before = now

    def decide(self, trace: Trace, now: float) -> Decision:
        """Decide about a trace; it is booked as decided so."""
        return Decision(
            *self.judge(
                trace.randomness,
                trace.threshold,
                trace.key,
                trace.site,
                trace.spans,
                trace.bytes,
                trace.duration,
                trace.error,
                trace.debug,
                trace.release,
                now,
            )
        )

    def judge(  # noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917 - each trace comes here, and calls cost
        self,
        randomness: int,
        incoming: int,
        key: Key,
        site: str,
        spans: int,
        size: int,
        duration: float,
        error: bool,  # noqa: FBT001 - as above
        debug: bool,  # noqa: FBT001
        release: str,
        now: float,
    ) -> tuple[bool, int | None, Reason]:
        """Decide about a trace with these fields of a `Trace`; return those of a `Decision`."""
        account = self.account
        if account is not None and now > account.tokens.at:
            account.advance(now)
            if account.tokens.level < 0 and now - self.ticked >= self._hurry:
                self.tick(now)
        state = self.key_states.states.get(key)
        if state is None:
            state = self.key_states.admit(key, now)
        unit = self._unit
        weight: float = spans if unit is _SPANS else size if unit is _BYTES else 1
        state.seen += 1
        state.arrived += 1
        if incoming:
            state.tally.errors_missed = True
        limit = None
        if error or debug or duration > state.slow_above or state.firsts < self._first_traces:
            limit = self._certain_limit(state, duration, release, now, error=error, debug=debug)
        elif self._release is not None and release and self._is_new_release(release, now):
            limit = self._release
        if self._quantile and (state.arrived < LEARN_ALL or not randomness & LEARN_SOME):
            state.learn(bucket_of(duration), self._quantile, self._fixed, self._min_samples)
        if limit is not None:
            if limit.has_room(now) and (account is None or account.has_room(weight)):
                limit.charge(weight)
                self.certain += weight
                self._keep(state, weight, incoming, duration, error=error)
                return True, None, limit.reason
            limit.over += 1
        if error:
            state.tally.errors_missed = True
        # From here on, chance decides.
        count = adjusted_count(incoming) if incoming else 1.0
        threshold, reason = state.threshold, _BUDGET
        if self._has_sites and site:
            threshold, reason = self._site_threshold(randomness, site, threshold, weight, now, count)
        elif account is not None:
            level = account.tokens.level
            if level < account.low and (threshold or level <= 0):
                threshold = self._lowered(threshold, account)
        if reason is _BUDGET and state.seen:
            state.weight += weight
            state.adjusted += weight * count
        else:
            # Planned for apart: the key's own probability does not decide about it.
            self.certain += weight * min(1.0, probability_of(threshold) * count)
        if incoming > threshold:
            threshold, reason = incoming, _INCOMING
        if 0 < threshold < NEVER:
            tally = state.tally
            tally.offered += count
            tally.offered_excess += count * threshold / (NEVER - threshold)
        if randomness < threshold:
            return False, threshold, reason
        if account is not None and not account.has_room(weight):
            self.guarded += 1
            return False, NEVER, _GUARD
        self._keep(state, weight, threshold, duration, error=error)
        return True, threshold, reason

    def follow(self, key: Key, spans: int, incoming: int, *, kept: bool) -> None:
        """Book spans of a trace that chance has decided about before, for who decides before all of them have come."""
        if self._unit is not _SPANS:
            return
        state = self.key_states.find(key)
        state.weight += spans
        state.adjusted += spans * (adjusted_count(incoming) if incoming else 1.0)
        if kept and self.account is not None:
            self.account.spend(spans)

    def book_late(self, spans: int, size: int) -> None:
        """Book spans of a trace that was kept before and seemed whole: the plan leaves room for as many to come."""
        weight = self._more(spans, size)
        self.certain += weight
        if self.account is not None:
            self.account.spend(weight)

    def admit_error(self, spans: int, size: int, now: float) -> bool:
        """Say whether there is room for a trace that was dropped before its error came; its ceiling is charged then.

        What it costs `book_late` books, and `book_rescued` what comes back of it.
        """
        limit, account = self._errors, self.account
        if limit is None:
            return False
        weight = self._more(spans, size)
        if account is not None:
            account.advance(now)
        if limit.has_room(now) and (account is None or account.has_room(weight)):
            limit.charge(weight)
            return True
        limit.over += 1
        return False

    def book_rescued(self, spans: int, size: int) -> None:
        """Book what came back of traces that `admit_error` let in."""
        if self._errors is not None:
            self._errors.charge(self._more(spans, size), traces=0.0)
        self.book_late(spans, size)

    def _more(self, spans: int, size: int) -> float:
        """Return what spans cost whose trace is paid for."""
        return spans if self._unit is _SPANS else size if self._unit is _BYTES else 0.0

    def _certain_limit(  # noqa: PLR0913 - what there is to know of a trace
        self, state: KeyState, duration: float, release: str, now: float, *, error: bool, debug: bool
    ) -> Limit | None:
        """Return the ceiling of the first reason to keep a trace whatever chance says; `None` if there is no reason."""
        if debug and self._debug is not None:
            return self._debug
        if error and self._errors is not None:
            return self._errors
        if duration > state.slow_above and self._slow is not None:
            return self._slow
        if state.firsts < self._first_traces and state is not self.key_states.other:
            state.firsts += 1
            return self._first
        if self._release is not None and release and self._is_new_release(release, now):
            return self._release
        return None

    def _is_new_release(self, release: str, now: float) -> bool:
        """Say whether a trace is among the first of its release."""
        known = self.releases.get(release)
        if known is None:
            if len(self.releases) >= self.policy.max_releases:
                del self.releases[min(self.releases, key=lambda name: self.releases[name][1])]
            known = self.releases[release] = [0, now]
        known[1] = now
        if known[0] >= self._release_traces:
            return False
        known[0] += 1
        return True

    def _lowered(self, threshold: int, account: Account) -> int:
        """Return a threshold as an account that is low makes it. Its factor is worked out once until some is spent."""
        level = account.tokens.level
        if level != self._lowered_at:
            self._lowered_at = level
            self._lowering = account.factor()
        return lowered(threshold, self._lowering)

    def _site_threshold(  # noqa: PLR0913, PLR0917 - what there is to know of a trace
        self, randomness: int, name: str, threshold: int, weight: float, now: float, count: float
    ) -> tuple[int, Reason]:
        """Return the threshold of our own for a trace of a site that stands for `count`, and where it comes from."""
        reason = _BUDGET
        site = self.sites.find(name, now)
        if site is not None:
            site.seen += count
            if site.cap > threshold:
                threshold, reason = site.cap, _SITE_RULE
        account = self.account
        # Keys that are kept whole stay so in other keys' bursts, as long as there are tokens at all.
        if account is not None and account.is_low and (threshold or account.tokens.level <= 0):
            threshold = self._lowered(threshold, account)
        minimum = self._minimum
        if site is not None and site.floor < threshold and minimum is not None and self._may_lift(minimum, now):
            if site.floor <= randomness < threshold:
                minimum.charge(weight)
            threshold, reason = site.floor, _SITE_MINIMUM
        return threshold, reason

    def _may_lift(self, limit: Limit, now: float) -> bool:
        """Say whether a site's minimum may lift a probability: not if all of them together are at their ceiling.

        It is asked before the trace's randomness is looked at, so that adjusted counts stay right.
        """
        if limit.has_room(now):
            return True
        limit.over += 1
        return False

    def _keep(self, state: KeyState, weight: float, threshold: int, duration: float, *, error: bool) -> None:
        if self.account is not None:
            self.account.spend(weight)
        state.tally.add(adjusted_count(threshold) if threshold else 1.0, duration, error=error)

    def tick(self, now: float) -> None:
        """Measure, and compute all probabilities anew. To be called about once a second."""
        elapsed = now - self.ticked
        if elapsed < SHORTEST_TICK:
            return
        self.ticked = now
        self.key_states.measure(now, elapsed)
        if self._has_sites:
            self.sites.measure(now, elapsed)
        part = 1 - 0.5 ** (elapsed / CERTAIN_HALF_LIFE)
        self.certain_rate += part * (self.certain / elapsed - self.certain_rate)
        self.certain = 0.0
        if now - self.window_began >= ESTIMATES_WINDOW:
            self.window_before, self.window_began = self.window_began, now
            for state in self.key_states.all():
                state.earlier, state.tally = state.tally, Tally()
        self.plan(now)

    def plan(self, now: float) -> None:
        """Share the budget among the keys, and set their thresholds."""
        states = self.key_states.all()
        self._hurry = HURRY + HURRY_KEY * len(states)
        demands = [state.weight_rate for state in states]
        # What a key would get that brings a trace a minute: so it is with those that nothing is known of.
        traffic = sum(state.traffic for state in states)
        demands.append(sum(demands) / traffic / NEW_KEY_EVERY if traffic else 0.0)
        cap = self.policy.key_budget.rate if self.policy.key_budget else math.inf
        budget = math.inf
        if self.account is not None:
            self.account.advance(now)
            tokens = self.account.tokens
            steer = (tokens.level - tokens.capacity / 2) / STEER
            budget = max(tokens.rate - self.certain_rate + steer, tokens.rate * LEAST_SHARE)
        given = share(demands, budget, self.policy.power, cap)
        self.key_states.new_threshold = threshold_near(given[-1] / demands[-1]) if demands[-1] else ALWAYS
        for state, demand, gets in zip(states, demands, given, strict=False):
            if gets >= demand:
                state.threshold = ALWAYS
            else:
                state.threshold = threshold_near(gets / state.adjusted_rate)

    def probability(self, key: Key) -> float:
        """Return the probability with which chance keeps traces of a key, sites' rules and bursts aside."""
        return self.key_states.find(key).probability

    def keys(self) -> Iterator[tuple[Key, KeyState]]:
        """Go through what is known of each key."""
        return iter(self.key_states)

    def report(self, key: Key, now: float, percentiles: tuple[float, ...] = (50.0, 95.0, 99.0)) -> Report:
        """Say what the kept traces of a key say of all of them, with 95 % intervals."""
        state = self.key_states.find(key)
        tally = state.tally
        if state.earlier is not None:
            tally = Tally()
            tally.merge(state.earlier)
            tally.merge(state.tally)
        unseen = adjusted_count(state.threshold)
        certain = self._errors is not None and not tally.errors_missed
        return Report(
            max(now - self.window_before, 0.0),
            tally.total(unseen),
            tally.error_ratio(unseen, all_errors_certain=certain),
            {percent: tally.percentile(percent / 100) for percent in percentiles},
        )

    def dump(self, now: float) -> dict[str, Any]:
        """Return what is known as data that JSON can hold; times are told as ages, so that another clock can go on."""
        return state_of(self, now)

    def load(self, data: dict[str, Any], now: float) -> None:
        """Go on from what `dump` returned, as if no time had passed. Raise `ValueError` if it is not that.

        The policy may be another one: its ceilings and rules hold from now on.
        """
        restore(self, data, now)
