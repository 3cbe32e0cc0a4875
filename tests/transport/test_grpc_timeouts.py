"""Settings of a gRPC server as seconds."""

import math

from otelwp_agent.config import blocks
from otelwp_agent.transport.grpc_timeouts import ANSWER_TO_PING, HANDSHAKE, IDLE, GrpcTimeouts
from otelwp_agent.transport.http_timeouts import JITTER


def timeouts(**settings):
    return GrpcTimeouts(blocks.GrpcServer(**settings))


def limits(**settings):
    return timeouts(keepalive={"server_parameters": settings})


def test_the_defaults():
    found = timeouts()
    assert (found.header, found.body, found.idle, found.ping) == (HANDSHAKE, 30.0, IDLE, math.inf)
    assert (found.age(), found.age_grace, found.answer_to_ping) == (math.inf, math.inf, ANSWER_TO_PING)


def test_keepalive():
    found = limits(max_connection_idle="5s", max_connection_age="6s", max_connection_age_grace="7s", time="8s")
    assert (found.idle, found.age_grace, found.ping, found.answer_to_ping) == (5, 7, 8, ANSWER_TO_PING)
    ages = [found.age() for _ in range(100)]
    assert all(6 * (1 - JITTER) <= age <= 6 * (1 + JITTER) for age in ages)
    assert len(set(ages)) > 1
    assert limits(time="8s", timeout="9s").answer_to_ping == 9


def test_zero_is_no_limit():
    assert timeouts(read_timeout="0s").body == math.inf
    assert limits(max_connection_idle="0s", max_connection_age="0s", time="0s").idle == math.inf
