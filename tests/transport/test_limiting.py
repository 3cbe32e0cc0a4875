import pytest

from otelwp_agent.errors import Overloaded
from otelwp_agent.transport.limiting import CombinedAllowance, RequestAllowance


class Part(RequestAllowance):
    def __init__(self, most=99):
        self.most, self.requests, self.items, self.size = most, 0, 0, 0

    def begin(self):
        if self.requests >= self.most:
            return Overloaded("requests", retry_after=3.5)
        self.requests += 1
        return None

    def end(self):
        self.requests -= 1

    def charge(self, items, size):
        if self.items + items > self.most:
            raise Overloaded("items", retry_after=1.5)
        self.items += items
        self.size += size

    def refund(self, items, size):
        self.items -= items
        self.size -= size


def state(*parts):
    return [(part.requests, part.items, part.size) for part in parts]


def test_a_request_counts_in_every_limiter():
    first, second = Part(), Part()
    both = CombinedAllowance([first, second])
    both.begin()
    both.charge(5, 100)
    assert state(first, second) == [(1, 5, 100), (1, 5, 100)]
    both.refund(2, 40)
    both.end()
    assert state(first, second) == [(0, 3, 60), (0, 3, 60)]


def test_a_request_is_withdrawn_from_every_limiter():
    first, second = Part(), Part()
    both = CombinedAllowance([first, second])
    both.begin()
    both.withdraw()
    assert state(first, second) == [(0, 0, 0), (0, 0, 0)]


def test_what_one_limiter_refuses_counts_in_none():
    first, second = Part(), Part(most=1)
    both = CombinedAllowance([first, second])
    assert both.begin() is None
    assert "requests" in str(both.begin())
    with pytest.raises(Overloaded, match="items"):
        both.charge(2, 10)
    assert state(first, second) == [(1, 0, 0), (1, 0, 0)]
