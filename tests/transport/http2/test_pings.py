"""Which pings of a client are allowed."""

import pytest

from otelwp_agent.transport.http2.frames import ConnectionViolationError, ErrorCode
from otelwp_agent.transport.http2.pings import IDLE_MIN_TIME, MAX_STRIKES, MIN_TIME, PingRules


class Pings:
    def __init__(self, *settings, **more):
        self.now = 0.0
        self.rules = PingRules(lambda: self.now, *settings, **more)

    def send(self, after, *, busy=True, sent=False):
        self.now += after
        self.rules.arrived(busy=busy, sent=sent)


def test_too_many_pings():
    pings = Pings()
    for _ in range(1 + MAX_STRIKES):
        pings.send(MIN_TIME - 1)
    with pytest.raises(ConnectionViolationError, match="too_many_pings") as caught:
        pings.send(1)
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_pings_after_data_of_ours_are_free():
    pings = Pings()
    for _ in range(100):
        pings.send(0, sent=True)
        pings.send(0)


def test_pings_without_calls_need_a_permission():
    idle, permitted = Pings(10.0), Pings(10.0, permit_without_stream=True)
    for _ in range(100):
        permitted.send(10, busy=False)
    for _ in range(1 + MAX_STRIKES):
        idle.send(10, busy=False)
    with pytest.raises(ConnectionViolationError):
        idle.send(10, busy=False)
    rare = Pings(10.0)
    for _ in range(100):
        rare.send(IDLE_MIN_TIME, busy=False)


def test_a_minimum_of_zero_allows_all_pings_of_calls():
    pings = Pings(0.0)
    for _ in range(100):
        pings.send(0)
