from __future__ import annotations

from collections import Counter

import pytest

from otelwp_agent.routing.figures import STALE, LiveFigures
from otelwp_agent.routing.strategies import Constrained, LeastLatency, Ranked, Strategy, Weighted


class Candidate:
    def __init__(self, name, latency=None, queued=0):
        self.name = name
        self.figures = LiveFigures()
        self.queued = queued
        if latency is not None:
            self.figures.delivered(0, latency)

    def backlog(self):
        return self.queued


def names(ordered):
    return [each.name for each in ordered]


def play(strategy, candidates, rounds, items=1):
    """Return the items that each candidate gets."""
    got = Counter()
    for _ in range(rounds):
        first = strategy.order(candidates, 0)[0].name
        strategy.chosen(first, items)
        got[first] += items
    return got


A, B, C = (Candidate(name) for name in "abc")


def test_the_base_keeps_the_order_of_the_configuration():
    assert names(Strategy().order([B, A, C], 0)) == ["b", "a", "c"]


def test_ranked_prefers_the_highest_value():
    assert names(Ranked({"a": 1, "b": 3, "c": 1}).order([A, B, C], 0)) == ["b", "a", "c"]


def test_shares_follow_the_weights():
    strategy = Weighted({"a": 5, "b": 3, "c": 2})
    assert play(strategy, [A, B, C], 1000, 7) == {"a": 3500, "b": 2100, "c": 1400}


def test_round_robin_takes_turns_whatever_the_sizes_are():
    strategy = Weighted({"a": 1, "b": 1, "c": 1}, in_batches=True)
    order = []
    for items in (100, 1, 50, 3, 900, 7):
        order.append(strategy.order([A, B, C], 0)[0].name)
        strategy.chosen(order[-1], items)
    assert order == ["a", "b", "c"] * 2


def test_a_destination_that_was_left_out_does_not_catch_up():
    strategy = Weighted({"a": 1, "b": 1})
    play(strategy, [A], 1000)
    got = play(strategy, [A, B], 100)
    assert abs(got["a"] - got["b"]) <= 1


def test_least_latency_weighs_the_queued_batches():
    fast, slow = Candidate("fast", 0.1), Candidate("slow", 0.5)
    assert names(LeastLatency().order([slow, fast], 0)) == ["fast", "slow"]
    fast.queued = 9
    assert names(LeastLatency().order([slow, fast], 0)) == ["slow", "fast"]


def test_least_latency_tries_a_destination_of_which_nothing_is_known():
    known, unknown = Candidate("known", 0.1), Candidate("unknown")
    assert names(LeastLatency().order([known, unknown], 0)) == ["unknown", "known"]
    unknown.queued = 1
    assert names(LeastLatency().order([known, unknown], 0)) == ["known", "unknown"]
    assert names(LeastLatency().order([known], STALE + 1)) == ["known"]


@pytest.mark.parametrize(
    ("latency", "ratio", "preferred"), [(0.0, 0.0, "a"), (0.5, 0.0, "b"), (0.0, 0.9, "b"), (5.0, 0.4, "a")]
)
def test_destinations_that_break_a_constraint_come_last(latency, ratio, preferred):
    a, b = Candidate("a", 1.0), Candidate("b", 0.1)
    a.figures.failed(0)
    strategy = Constrained(Strategy(), latency, ratio)
    assert names(strategy.order([a, b], 0))[0] == preferred
    assert names(strategy.order([a, b], STALE + 1)) == ["a", "b"]


def test_a_constrained_strategy_counts_what_was_chosen():
    assert play(Constrained(Weighted({"a": 1, "b": 3}), 1.0, 0), [A, B], 100) == {"a": 25, "b": 75}
