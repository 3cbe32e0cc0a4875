import random

import pytest

from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.heads import MOST_OPERATIONS, HeadRates
from otelwp_agent.sampling.adaptive.policy import Always, Budget, Policy
from otelwp_agent.sampling.adaptive.trace import Trace
from otelwp_agent.sampling.consistent import threshold_of

PER = ["service.name", "http.route"]


class World:
    """Services that send to a sampler, each key at its own rate, and request their rates."""

    def __init__(self, rates, budget=20.0, per=PER, *, tells=True, ask_every=60.0, headroom=2.0, min_rate=0.01):
        policy = Policy(Budget.traces_per_second(budget), always=Always(None, None, None, None))
        self.sampler = Controller(policy, 0.0)
        self.heads = HeadRates(min_rate, headroom, 120.0)
        self.rates = rates
        self.per = per
        self.now = 0.0
        self.told = {}
        self.history = []
        self._tells = tells
        self._ask_every = ask_every
        self._dice = random.Random(3)

    def ask(self, service):
        return self.heads.rates(service, [(self.sampler, self.per)], self.now)

    def run(self, seconds):
        dice = self._dice
        for second in range(seconds):
            for key, rate in self.rates.items():
                head = self.told.get(key[0], 1.0)
                threshold = threshold_of(head) if head < 1 else 0
                for _ in range(int(rate) + (dice.random() < rate % 1)):
                    randomness = dice.getrandbits(56)
                    if self._tells:
                        if randomness >= threshold:
                            self.sampler.decide(Trace(randomness, threshold, key), self.now)
                    elif dice.random() < head:
                        self.sampler.decide(Trace(randomness, 0, key), self.now)
            self.now += 1
            self.sampler.tick(self.now)
            if second % self._ask_every == self._ask_every - 1:
                for service in {key[0] for key in self.rates}:
                    self.told[service] = self.ask(service).rate
                self.history.append(dict(self.told))


def test_within_the_target_the_rate_is_1():
    world = World({("shop", "/"): 5})
    world.run(60)
    assert world.ask("shop") == (1.0, None)
    assert world.ask("unknown") == (1.0, None)


@pytest.mark.parametrize("tells", [True, False])
def test_above_the_target_the_rate_is_twice_the_probability_with_and_without_th(tells):
    world = World({("shop", "/"): 200}, budget=20, tells=tells)
    world.run(1200)
    late = [told["shop"] for told in world.history[len(world.history) // 2 :]]
    assert min(late) > 0.1  # of 200 traces a second, 20 are kept
    assert max(late) < 0.4
    assert sum(late) / len(late) == pytest.approx(0.2, rel=0.3)


@pytest.mark.parametrize("tells", [True, False])
def test_the_rate_returns_to_1_when_the_traffic_ends(tells):
    world = World({("shop", "/"): 200}, budget=20, tells=tells)
    world.run(300)
    assert world.told["shop"] < 0.5
    world.rates = {("shop", "/"): 4}
    world.run(1800)
    assert world.told["shop"] == 1


def test_a_rare_key_sets_the_rate_to_1():
    world = World({("shop", "/"): 200, ("shop", "/rare"): 0.2, ("blog", "/"): 200})
    world.run(120)
    assert world.ask("shop").rate == 1
    assert world.ask("blog").rate < 0.5


def test_no_less_than_the_lowest_rate():
    world = World({("shop", "/"): 500}, budget=1, min_rate=0.05)
    world.run(60)
    assert world.ask("shop").rate == 0.05


def test_operations_have_rates_of_their_own():
    world = World({("shop", "GET /"): 200, ("shop", "GET /rare"): 0.2}, per=["service.name", "span.name"])
    world.run(60)
    rate, operations = world.ask("shop")
    assert operations["GET /"] < 0.5
    assert operations["GET /rare"] == 1
    assert rate > operations["GET /"]  # an operation that nothing is known of
    assert world.ask("unknown").operations == {}


def test_keys_without_a_service_are_for_all():
    world = World({("/",): 200}, per=["http.route"])
    world.run(60)
    assert world.ask("any").rate == world.ask("other").rate < 0.5


def test_the_highest_rate_of_several_samplers_applies():
    world = World({("shop", "/"): 200}, budget=20)
    other = World({("shop", "/"): 200}, budget=60)
    world.run(60)
    other.run(60)
    both = [(world.sampler, PER), (other.sampler, PER)]
    heads = HeadRates(0.01, 2.0, 120.0)
    assert heads.rates("shop", both, 60.0).rate == pytest.approx(2 * 0.3, rel=0.3)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("otelwp_agent.sampling.adaptive.heads.MOST", 20)
    world = World({(f"service {number}", "/"): 1 for number in range(50)}, budget=5)
    world.run(20)
    for number in range(50):
        assert world.ask(f"service {number}").rate < 1
    assert len(world.heads._rates) == 20
    world.ask("made up")
    assert ("made up", None) not in world.heads._rates
    many = {("shop", f"op {number}"): 1 for number in range(MOST_OPERATIONS + 10)}
    world = World(many, budget=5, per=["service.name", "span.name"])
    world.run(3)
    assert len(world.ask("shop").operations) == MOST_OPERATIONS


def test_needs_are_looked_up_again_after_a_while():
    world = World({("shop", "/"): 5}, budget=20)
    world.run(10)
    assert world.ask("shop").rate == 1
    world.rates = {("shop", "/"): 500}
    world.run(3)
    assert world.ask("shop").rate == 1
    world.run(3)
    assert world.ask("shop").rate < 0.5
