"""Calls in progress by address."""

import pytest

from otelwp_agent.errors import Overloaded
from otelwp_agent.transport.grpc_peers import CallsPerPeer


def test_an_address_has_so_many_calls_at_a_time():
    calls = CallsPerPeer()
    first = calls.begin("192.0.2.1", 2)
    calls.begin("192.0.2.1", 2)
    calls.begin("192.0.2.2", 2)
    with pytest.raises(Overloaded, match=r"2 calls from 192\.0\.2\.1 are in progress") as caught:
        calls.begin("192.0.2.1", 2)
    assert (caught.value.reason, caught.value.retry_after) == ("streams_per_peer", 1.0)
    calls.end(first)
    assert calls.begin("192.0.2.1", 2) == first


def test_a_network_of_ipv6_is_one_address_and_ended_ones_are_forgotten():
    calls = CallsPerPeer()
    first = calls.begin("2001:db8::1", 2)
    assert calls.begin("2001:db8::ffff:1", 2) == first
    calls.end(first)
    assert len(calls) == 1
    calls.end(first)
    assert len(calls) == 0
