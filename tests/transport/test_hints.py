from otelwp_agent.transport.authentication import Client
from otelwp_agent.transport.hints import limit_hints, plan_hints
from otelwp_agent.transport.limiting import CombinedAllowance, Left, RequestAllowance


class Allowance(RequestAllowance):
    def __init__(self, left=None):
        self._left = left

    def begin(self):
        """Allow it."""

    def left(self):
        return self._left


class Unlimited(RequestAllowance):
    def begin(self):
        """Allow it."""


def test_the_hints_of_a_plan_are_in_headers():
    client = Client("acme", limits={"sampling_rate": 0.05, "configuration": 12.0, "items_per_second": 5.0})
    assert plan_hints(client) == (("X-OTelWP-Sampling-Rate", "0.05"), ("X-OTelWP-Configuration", "12"))
    assert plan_hints(Client("acme")) == plan_hints(None) == ()


def test_the_items_that_are_left_are_rounded_to_the_safe_side():
    left = (("X-RateLimit-Limit", "100"), ("X-RateLimit-Remaining", "9"), ("X-RateLimit-Reset", "3"))
    assert limit_hints(Allowance(Left(100.9, 9.99, 2.01))) == left
    assert limit_hints(Allowance()) == limit_hints(Unlimited()) == limit_hints(None) == ()


def test_of_several_limiters_the_strictest_counts():
    strict, loose = Allowance(Left(10, 1, 1)), Allowance(Left(100, 99, 1))
    assert CombinedAllowance([loose, Unlimited(), strict]).left() == Left(10, 1, 1)
    assert CombinedAllowance([Unlimited()]).left() is None
