import math
import random

import pytest

from otelwp_agent.limiting.gcra import Rate
from otelwp_agent.limiting.leases import IDLE, REFRESH, SharedRates
from tests.kit.redis_server import Store


class Cluster:
    """Replicas with one store, in simulated time: they exchange every `REFRESH` seconds while the store is there."""

    def __init__(self, replicas):
        self.now = 100.0
        self.store = Store(lambda: self.now)
        self.there = True
        self.urgent = set()
        self.replicas = [SharedRates("limit", replicas, lambda at=at: self.urgent.add(at)) for at in range(replicas)]

    def exchange(self, replica):
        requests = replica.requests(self.now, 1000)
        if not self.there:
            for request in requests:
                replica.failed(request)
            replica.disconnected()
            return
        for each in requests:
            fields = (math.inf, each.rate.interval, each.window, each.spent, each.floor, each.want, each.least)
            _, tokens, ahead = self.store.run([each.key], fields)
            replica.granted(each, tokens, ahead, self.now)

    def run(self, rate, seconds, per_second, *, cost=1.0, shares=None):
        """Send requests to the replicas, chosen by the weights `shares`; return the units that were accepted."""
        dice, accepted, next_exchange = random.Random(7), 0.0, self.now
        end = self.now + seconds
        while self.now < end:
            if self.now >= next_exchange:
                for replica in self.replicas:
                    self.exchange(replica)
                next_exchange += REFRESH
            at = dice.choices(range(len(self.replicas)), shares)[0]
            if not self.replicas[at].take("tenant", rate, self.now, cost):
                accepted += cost
            if at in self.urgent:
                self.urgent.discard(at)
                self.exchange(self.replicas[at])
            self.now += 1 / per_second
        return accepted


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("shares", [None, "skewed"])
@pytest.mark.parametrize("figures", [(100, 100), (1000, 50), (5, 20)])
def test_all_replicas_together_keep_the_limit_under_a_flood(replicas, shares, figures):
    rate, cluster = Rate(*figures), Cluster(replicas)
    weights = None if shares is None else [100] + [1] * (replicas - 1)
    accepted = cluster.run(rate, 20, per_second=rate.per_second * 10, shares=weights)
    exact = rate.burst + 20 * rate.per_second
    assert accepted == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_traffic_within_the_limit_is_accepted(replicas):
    rate, cluster = Rate(100, 100), Cluster(replicas)
    accepted = cluster.run(rate, 20, per_second=90, shares=[20] + [1] * (replicas - 1))
    assert accepted >= 0.99 * 20 * 90


def test_requests_larger_than_a_share_of_the_burst_are_accepted():
    rate, cluster = Rate(1000, 1000), Cluster(4)
    accepted = cluster.run(rate, 30, per_second=10, cost=700.0)
    assert accepted == pytest.approx(1000 + 30 * 1000, rel=0.1)


def test_requests_larger_than_the_burst_are_accepted_at_the_rate():
    rate, cluster = Rate(1000, 1000), Cluster(2)
    accepted = cluster.run(rate, 60, per_second=10, cost=2500.0)
    assert accepted == pytest.approx(1000 + 60 * 1000, rel=0.15)


def test_without_the_store_each_replica_has_its_share():
    rate, cluster = Rate(100, 100), Cluster(4)
    cluster.there = False
    accepted = cluster.run(rate, 20, per_second=1000)
    assert accepted == pytest.approx(100 + 20 * 100, rel=0.05)


def test_the_limit_holds_while_the_store_goes_away_and_returns():
    rate, cluster = Rate(100, 100), Cluster(2)
    accepted = 0.0
    for _ in range(5):
        accepted += cluster.run(rate, 3, per_second=1000)
        cluster.there = False
        accepted += cluster.run(rate, 3, per_second=1000)
        cluster.there = True
    assert accepted == pytest.approx(100 + 30 * 100, rel=0.2)


def test_a_store_that_lost_its_numbers_gives_no_new_burst():
    rate, cluster = Rate(10, 100), Cluster(2)
    accepted = cluster.run(rate, 20, per_second=200)
    for _ in range(5):
        cluster.store.due.clear()
        accepted += cluster.run(rate, 4, per_second=200)
    assert accepted == pytest.approx(100 + 40 * 10, rel=0.2)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("seconds", [0.5, 8, 600])
def test_a_sender_within_its_share_is_not_refused_after_an_outage(replicas, seconds):
    rate, cluster = Rate(25, 25), Cluster(replicas)
    sent = 0
    for there, duration in ((True, 5), (False, seconds), (True, 5), (False, seconds), (True, 5)):
        cluster.there = there
        began = cluster.now
        accepted = cluster.run(rate, duration, per_second=15)
        sent = round((cluster.now - began) * 15)
        assert accepted == sent, (there, duration)


def hang(cluster, rate, seconds, per_second):
    """Send requests to the only replica while the store hangs, and then answers; return the accepted ones."""
    (replica,) = cluster.replicas
    replica.disconnected()
    waiting = replica.requests(cluster.now, 10)
    accepted = 0
    for _ in range(round(seconds * per_second)):
        accepted += not replica.take("tenant", rate, cluster.now)
        cluster.now += 1 / per_second
    for each in waiting:
        fields = (math.inf, each.rate.interval, each.window, each.spent, each.floor, each.want, each.least)
        _, tokens, ahead = cluster.store.run([each.key], fields)
        replica.granted(each, tokens, ahead, cluster.now)
    return accepted


def test_units_that_are_spent_while_an_answer_is_late_are_not_charged_afterwards():
    rate, cluster = Rate(25, 25), Cluster(1)
    for _ in range(3):
        assert cluster.run(rate, 5, per_second=15) == pytest.approx(5 * 15, abs=1)
        assert hang(cluster, rate, 3, 15) == 45
    assert cluster.run(rate, 5, per_second=15) == pytest.approx(5 * 15, abs=1)
    accepted = cluster.run(rate, 5, per_second=100)
    for _ in range(3):
        accepted += hang(cluster, rate, 3, 100) + cluster.run(rate, 5, per_second=100)
    assert accepted == pytest.approx(25 + 29 * 25, rel=0.1)


def test_many_keys_are_not_charged_for_an_outage_one_after_another():
    rate, cluster = Rate(10, 10), Cluster(1)
    replica = cluster.replicas[0]
    cluster.there = False
    for _ in range(100):
        for key in range(10):
            assert not replica.take(key, rate, cluster.now)
        cluster.now += 0.2
    requests = []
    while part := replica.requests(cluster.now, 3):
        requests += part
        for each in part:
            replica.granted(each, 0.0, 0.0, cluster.now)
    assert [request.spent for request in requests] == [pytest.approx(0.0, abs=1e-6)] * 10


def test_an_outage_of_an_hour_leaves_no_long_debt():
    rate, cluster = Rate(1, 10), Cluster(2)
    cluster.run(rate, 10, per_second=10)
    cluster.there = False
    cluster.run(rate, 3600, per_second=3)
    cluster.there = True
    assert cluster.run(rate, 60, per_second=10) == pytest.approx(60, rel=0.25)


def test_the_unused_units_of_a_key_are_returned():
    rate, cluster = Rate(10 / 3600, 10), Cluster(2)
    first, second = cluster.replicas
    assert first.take("tenant", rate, cluster.now) == 0
    cluster.exchange(first)
    assert cluster.store.due["tenant"] - cluster.now > 1.5 * rate.interval  # one was spent, another is leased
    cluster.now += 2 * IDLE
    first.forget_idle(cluster.now)
    cluster.exchange(first)
    assert cluster.store.due["tenant"] - cluster.now == pytest.approx(rate.interval - 2 * IDLE)
    cluster.now += 2 * rate.interval
    first.forget_idle(cluster.now)
    assert len(first) == 0
    assert second.take("tenant", rate, cluster.now) == 0


def test_a_replica_that_stops_returns_its_units():
    rate, cluster = Rate(10, 100), Cluster(2)
    replica = cluster.replicas[0]
    replica.take("tenant", rate, cluster.now)
    cluster.exchange(replica)
    replica.take("tenant", rate, cluster.now)
    replica.release()
    cluster.exchange(replica)
    assert cluster.store.due["tenant"] - cluster.now == pytest.approx(2 * rate.interval)


def test_a_refusal_names_the_wait_of_all_replicas():
    rate, cluster = Rate(1, 4), Cluster(2)
    first, second = cluster.replicas
    while not first.take("tenant", rate, cluster.now):
        cluster.exchange(first)
    cluster.exchange(first)
    assert first.take("tenant", rate, cluster.now) == pytest.approx(1.0, abs=0.01)
    assert first.remaining("tenant", rate, cluster.now) == pytest.approx(0.0, abs=0.01)
    assert first.reset_after("tenant", cluster.now) == pytest.approx(4.0, abs=0.01)
    assert second.remaining("tenant", rate, cluster.now) == 2  # not connected yet: its share
    assert second.reset_after("tenant", cluster.now) == 0


def test_a_refund_is_available_again():
    rate, cluster = Rate(1, 4), Cluster(1)
    replica = cluster.replicas[0]
    replica.refund("tenant", rate, cluster.now)
    while not replica.take("tenant", rate, cluster.now):
        cluster.exchange(replica)
    replica.refund("tenant", rate, cluster.now)
    assert replica.take("tenant", rate, cluster.now) == 0
    assert replica.take("tenant", rate, cluster.now) > 0


def test_a_changed_limit_applies_at_once():
    cluster = Cluster(1)
    replica = cluster.replicas[0]
    assert not replica.take("tenant", Rate(1, 1), cluster.now)
    cluster.exchange(replica)
    faster = Rate(100, 100)
    accepted = cluster.run(faster, 10, per_second=1000)
    assert accepted == pytest.approx(100 + 10 * 100, rel=0.1)


def test_a_million_keys_take_bounded_memory():
    replica = SharedRates("limit", 2, max_keys=1000)
    rate = Rate(1 / 3600, 1)
    for number in range(20_000):
        replica.take(number, rate, 0.0)
    assert len(replica) <= 1000 + 1024
    assert len(replica._due) <= 1000
    replica.forget_idle(math.inf)
    assert len(replica) == 0


def test_answers_for_forgotten_keys_are_ignored():
    cluster = Cluster(1)
    replica = cluster.replicas[0]
    replica.take("tenant", Rate(1, 1), cluster.now)
    (request,) = replica.requests(cluster.now, 10)
    replica.forget_idle(math.inf)
    replica.granted(request, 1.0, 1.0, cluster.now)
    replica.failed(request)
    assert len(replica) == 0
