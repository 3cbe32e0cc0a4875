import math

from otelwp_agent.config import blocks
from otelwp_agent.config.types import Endpoint
from otelwp_agent.transport.http_timeouts import ConnectionTimeouts


def timeouts(**settings):
    made = ConnectionTimeouts(blocks.HttpServer(endpoint=Endpoint("127.0.0.1:0"), **settings))
    return made.header, made.body, made.write, made.idle


def test_each_state_has_its_own_timeout_and_zero_is_no_limit():
    own = {"read_header_timeout": "1s", "read_timeout": "2s", "write_timeout": "3s", "idle_timeout": "4s"}
    assert timeouts(**own) == (1, 2, 3, 4)
    assert timeouts(**dict.fromkeys(own, "0s")) == (math.inf,) * 4


def test_the_read_timeout_limits_heads_and_idle_connections_without_a_timeout_of_their_own():
    settings = {"read_header_timeout": "0s", "read_timeout": "2s", "idle_timeout": "0s"}
    assert timeouts(**settings)[::3] == (2, 2)
