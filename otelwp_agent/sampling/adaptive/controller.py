"""Decide which traces are kept, so that the budget holds, important traces are kept, and totals can be estimated.

The traffic of each key (the values of the attributes in `per`) is measured, and the budget is shared among the keys
(sharing.py). The result is one sampling probability for each key, stored as a threshold that the randomness of a trace
must reach. Between ticks the guard (guard.py) lowers all probabilities if more is spent than planned.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otelwp_agent.sampling.adaptive.always import AlwaysKept
from otelwp_agent.sampling.adaptive.estimates import Tally
from otelwp_agent.sampling.adaptive.guard import BudgetGuard
from otelwp_agent.sampling.adaptive.histogram import bucket_of
from otelwp_agent.sampling.adaptive.keys import Keys, KeyState
from otelwp_agent.sampling.adaptive.policy import Unit
from otelwp_agent.sampling.adaptive.sharing import share
from otelwp_agent.sampling.adaptive.sites import SiteTable
from otelwp_agent.sampling.adaptive.trace import Decision, Reason
from otelwp_agent.sampling.advice import Advices
from otelwp_agent.sampling.consistent import ALWAYS, NEVER, adjusted_count, lowered, probability_of, threshold_near

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelwp_agent.sampling.adaptive.guard import Limit
    from otelwp_agent.sampling.adaptive.policy import Policy
    from otelwp_agent.sampling.adaptive.trace import Key, Trace

STEER = 10.0
"""Seconds in which the plan brings the tokens back to half of their capacity, after too much or too little was
spent."""
LEAST_SHARE = 0.02
"""Part of the budget that remains for probability sampling even if the rules of `always` cost more than the rest."""
CERTAIN_HALF_LIFE = 3.0
"""Half-life in seconds of the measured cost of always-kept traces."""
HURRY, HURRY_KEY = 0.2, 1e-4
"""Seconds since the last tick, and extra seconds for each key, after which an overdrawn guard triggers a tick early. A
tick costs 2 µs for each key, so early ticks take at most about 2 % of the time."""
NEW_KEY_EVERY = 60.0
"""Assumed seconds between the traces of an unknown key, used for planning."""
SHORTEST_TICK = 0.1
"""Seconds; a tick that follows the last one sooner is ignored, because the interval is too short to measure rates."""
ESTIMATES_WINDOW = 300.0
"""Seconds; estimates cover the last one to two windows of this length."""
LEARN_ALL, LEARN_SOME = 1024, 0b111
"""Durations are recorded for the first LEARN_ALL traces of a key in a window, and after that for traces whose
randomness has none of the LEARN_SOME bits. Those are the lowest bits, which do not influence the sampling decision."""

# Looking up an enumeration member costs more than a module global, and each trace needs several.
_BUDGET, _SITE_RULE, _SITE_MINIMUM = Reason.BUDGET, Reason.SITE_RULE, Reason.SITE_MINIMUM
_INCOMING, _GUARD = Reason.INCOMING, Reason.GUARD
_SPANS, _BYTES = Unit.SPANS, Unit.BYTES


class Controller:
    """Decides about traces. `now` is seconds on any monotonic clock."""

    def __init__(self, policy: Policy, now: float) -> None:
        """Start without measurements.

        All traces are kept until the first tick, or until the guard lowers probabilities.
        """
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
        self.guard = None if budget is None else BudgetGuard(budget.rate, now)
        self.always = AlwaysKept(policy, now)
        self._has_sites = bool(policy.site_rules or policy.site_minimum)
        self.key_states = Keys(policy.max_keys, policy.forget_after, fixed, now, policy.tenant_share)
        if budget is not None:
            self.key_states.new_rate = budget.rate
        self.sites = SiteTable(policy.site_rules, policy.site_minimum, policy.max_sites, policy.forget_after)
        self.advices = Advices()
        """Limits of the probabilities that backends request; they apply from the next plan on."""
        self.guarded = 0
        """Number of traces dropped because the budget of the last minute was spent."""
        self.certain = 0.0
        """Cost of always-kept traces since the last tick; `certain_rate` is the mean cost per second."""
        self.certain_rate = 0.0
        self.ticked = now
        self._hurry = HURRY
        self._lowered_at = math.nan
        self._lowering = 1.0
        """Factor by which a low guard multiplies probabilities, cached for the token level in `_lowered_at`."""
        self.window_began = self.window_before = now

    def decide(self, trace: Trace, now: float) -> Decision:
        """Decide about a trace and record the decision."""
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

    def judge(  # noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917 - called for every trace, where calls cost time
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
        tenant: str = "",
    ) -> tuple[bool, int | None, Reason]:
        """Decide about a trace given as the fields of a `Trace`; return the fields of a `Decision`.

        The key of a trace of a tenant ends with `tenant`.
        """
        guard = self.guard
        if guard is not None and now > guard.tokens.at:
            guard.advance(now)
            if guard.tokens.level < 0 and now - self.ticked >= self._hurry:
                self.tick(now)
        state = self.key_states.states.get(key)
        if state is None:
            state = self.key_states.admit(key, now, tenant)
        unit = self._unit
        weight: float = spans if unit is _SPANS else size if unit is _BYTES else 1
        state.seen += 1
        state.arrived += 1
        if incoming:
            state.tally.errors_missed = True
        limit = None
        factor = 1.0 if state.tenant is None or guard is None else state.tenant.factor(guard.tokens)
        always = self.always
        if error or debug or duration > state.slow_above or state.firsts < always.first_traces:
            other = state.shared
            limit = always.limit_for(state, duration, release, now, error=error, debug=debug, other=other)
        elif always.release is not None and release and always.is_new_release(release, now):
            limit = always.release
        if self._quantile and (state.arrived < LEARN_ALL or not randomness & LEARN_SOME):
            state.learn(bucket_of(duration), self._quantile, self._fixed, self._min_samples)
        if limit is not None:
            if limit.has_capacity(now) and (guard is None or guard.has_capacity(weight)) and factor >= 1:
                limit.charge(weight)
                self.certain += weight
                self._keep(state, weight, incoming, duration, error=error)
                return True, None, limit.reason
            limit.over += 1
        if error:
            state.tally.errors_missed = True
        # The decision from here on depends on probability.
        count = adjusted_count(incoming) if incoming else 1.0
        threshold, reason = state.threshold, _BUDGET
        if self._has_sites and site:
            threshold, reason = self._site_threshold(randomness, site, threshold, weight, now, count)
        elif guard is not None:
            level = guard.tokens.level
            if level < guard.low and (threshold or level <= 0):
                threshold = self._lowered(threshold, guard)
        if factor < 1:
            threshold = lowered(threshold, factor)
        if reason is _BUDGET and state.seen:
            state.weight += weight
            state.adjusted += weight * count
        else:
            # Planned separately: the key's own probability does not decide about this trace.
            self.certain += weight * min(1.0, probability_of(threshold) * count)
        if incoming > threshold:
            threshold, reason = incoming, _INCOMING
        if 0 < threshold < NEVER:
            tally = state.tally
            tally.offered += count
            tally.offered_excess += count * threshold / (NEVER - threshold)
        if randomness < threshold:
            return False, threshold, reason
        if guard is not None and not guard.has_capacity(weight):
            self.guarded += 1
            return False, NEVER, _GUARD
        self._keep(state, weight, threshold, duration, error=error)
        return True, threshold, reason

    def follow(self, key: Key, spans: int, incoming: int, *, kept: bool) -> None:
        """Record further spans of a trace that was decided by probability before all its spans had arrived."""
        if self._unit is not _SPANS:
            return
        state = self.key_states.find(key)
        state.weight += spans
        state.adjusted += spans * (adjusted_count(incoming) if incoming else 1.0)
        if kept and self.guard is not None:
            self.guard.spend(spans)
            if state.tenant is not None:
                state.tenant.debt += spans

    def book_late(self, spans: int, size: int) -> None:
        """Record spans that arrived after their trace was kept and seemed complete. The plan reserves as much again."""
        weight = self._more(spans, size)
        self.certain += weight
        if self.guard is not None:
            self.guard.spend(weight)

    def admit_error(self, spans: int, size: int, now: float) -> bool:
        """Return whether a dropped trace may still be kept because an error arrived for it; if so, charge its ceiling.

        The cost itself is recorded by `book_late`, and that of recovered spans by `book_rescued`.
        """
        limit, guard = self.always.errors, self.guard
        if limit is None:
            return False
        weight = self._more(spans, size)
        if guard is not None:
            guard.advance(now)
        if limit.has_capacity(now) and (guard is None or guard.has_capacity(weight)):
            limit.charge(weight)
            return True
        limit.over += 1
        return False

    def book_rescued(self, spans: int, size: int) -> None:
        """Record recovered spans of traces that `admit_error` accepted."""
        errors = self.always.errors
        if errors is not None:
            errors.charge(self._more(spans, size), traces=0.0)
        self.book_late(spans, size)

    def _more(self, spans: int, size: int) -> float:
        """Return the cost of further spans of a trace that was already counted."""
        return spans if self._unit is _SPANS else size if self._unit is _BYTES else 0.0

    def _lowered(self, threshold: int, guard: BudgetGuard) -> int:
        """Lower a threshold's probability by the guard's factor. The factor is cached until the token level changes."""
        level = guard.tokens.level
        if level != self._lowered_at:
            self._lowered_at = level
            self._lowering = guard.factor()
        return lowered(threshold, self._lowering)

    def _site_threshold(  # noqa: PLR0913, PLR0917 - the fields of a trace; an object would cost time
        self, randomness: int, name: str, threshold: int, weight: float, now: float, count: float
    ) -> tuple[int, Reason]:
        """Return the own threshold for a trace of site `name`, and the reason.

        `count` is the trace's adjusted count.
        """
        reason = _BUDGET
        site = self.sites.find(name, now)
        if site is not None:
            site.seen += count
            if site.cap > threshold:
                threshold, reason = site.cap, _SITE_RULE
        guard = self.guard
        # Keys that are kept completely stay so during bursts of other keys, until all tokens are used.
        if guard is not None and guard.is_low and (threshold or guard.tokens.level <= 0):
            threshold = self._lowered(threshold, guard)
        minimum = self.always.site_minimum
        if site is not None and site.floor < threshold and minimum is not None and self._may_lift(minimum, now):
            if site.floor <= randomness < threshold:
                minimum.charge(weight)
            threshold, reason = site.floor, _SITE_MINIMUM
        return threshold, reason

    def _may_lift(self, limit: Limit, now: float) -> bool:
        """Return whether a site's minimum may raise a probability: not while all sites together are at their ceiling.

        This is checked before the trace's randomness is, so that adjusted counts stay right.
        """
        if limit.has_capacity(now):
            return True
        limit.over += 1
        return False

    def _keep(self, state: KeyState, weight: float, threshold: int, duration: float, *, error: bool) -> None:
        if self.guard is not None:
            self.guard.spend(weight)
            if state.tenant is not None:
                state.tenant.debt += weight
        state.tally.add(adjusted_count(threshold) if threshold else 1.0, duration, error=error)

    def tick(self, now: float) -> None:
        """Measure rates and recompute all probabilities. Call it about once a second."""
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
        """Share the budget among the keys and set their thresholds."""
        states = self.key_states.all()
        self._hurry = HURRY + HURRY_KEY * len(states)
        demands = [state.weight_rate for state in states]
        # Demand of a key with one trace a minute, which is assumed for keys without measurements.
        traffic = sum(state.traffic for state in states)
        demands.append(sum(demands) / traffic / NEW_KEY_EVERY if traffic else 0.0)
        cap = self.policy.key_budget.rate if self.policy.key_budget else math.inf
        budget = math.inf
        if self.guard is not None:
            self.guard.advance(now)
            tokens = self.guard.tokens
            steer = (tokens.level - tokens.capacity / 2) / STEER
            budget = max(tokens.rate - self.certain_rate + steer, tokens.rate * LEAST_SHARE)
        given = self._share(states, demands, budget, cap)
        self.key_states.new_threshold = threshold_near(given[-1] / demands[-1]) if demands[-1] else ALWAYS
        for state, demand, gets in zip(states, demands, given, strict=False):
            if gets >= demand:
                state.threshold = ALWAYS
            else:
                state.threshold = threshold_near(gets / state.adjusted_rate)
        if self.advices:
            self._follow_advices(states, now)

    def _follow_advices(self, states: list[KeyState], now: float) -> None:
        """Raise thresholds to those that backends request. Rules that always keep traces are not affected."""
        # Advice is about all traces, also those that senders with a sampling threshold have not sent.
        traffic = sum(
            [state.traffic * state.adjusted_rate / state.weight_rate for state in states if state.weight_rate]
        )
        least = self.advices.threshold(traffic, now)
        self.key_states.new_threshold = max(self.key_states.new_threshold, least)
        for state in states:
            state.threshold = max(state.threshold, least)

    def _share(self, states: list[KeyState], demands: list[float], budget: float, cap: float) -> list[float]:
        """Share the budget among the tenants in equal parts, as far as each needs it, and each part among its keys.

        All keys without a tenant are one party. The last demand is that of an unknown key.
        """
        tenants = self.key_states.tenants
        if not tenants:
            return share(demands, budget, self.policy.power, cap)
        parties: dict[str, list[int]] = {}
        for place, state in enumerate(states):
            parties.setdefault(state.tenant.name if state.tenant is not None else "", []).append(place)
        parties.setdefault("", []).append(len(states))
        wanted = [sum([min(demands[place], cap) for place in places]) for places in parties.values()]
        parts = share(wanted, budget, 0.0)
        rate = max(parts) if sum(wanted) > budget else budget
        self.key_states.new_rate = rate
        for tenant in tenants.values():
            tenant.rate = rate
        given = [0.0] * len(demands)
        for places, part in zip(parties.values(), parts, strict=True):
            of_keys = share([demands[place] for place in places], part, self.policy.power, cap)
            for place, each in zip(places, of_keys, strict=True):
                given[place] = each
        return given

    def probability(self, key: Key) -> float:
        """Return the probability with which traces of a key are kept, without site rules and bursts."""
        return self.key_states.find(key).probability

    def keys(self) -> Iterator[tuple[Key, KeyState]]:
        """Return an iterator over all keys and their states."""
        return iter(self.key_states)
