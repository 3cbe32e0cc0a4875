"""A rate limiter with a clock that the test sets, and its settings."""

import structlog

from otelwp_agent.component import ComponentId, Context, Kind, NoHost
from otelwp_agent.errors import ForbiddenError, Overloaded
from otelwp_agent.extensions.rate_limiter import FACTORY, Config
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing.fakes import FakeClock
from otelwp_agent.transport.authentication import Client

ROUTE = "/v1/traces"
ACME = Client(tenant="acme", credential="key-1")
OTHER = Client(tenant="other", credential="key-2")


class Limiter:
    """A limiter with a clock that the test sets."""

    def __init__(self, **settings):
        self.clock, self.registry = FakeClock(1000.0), Registry()
        context = Context(
            id=ComponentId("rate_limiter"),
            kind=Kind.EXTENSION,
            registry=self.registry,
            log=structlog.get_logger(),
            clock=self.clock,
            host=NoHost(),
        )
        self.limiter = FACTORY.build(Config.model_validate(settings), context)

    def allowance(self, client=None, peer="192.0.2.1", route=ROUTE):
        return self.limiter.allowance(client, peer, route)

    def begin(self, *args, **options):
        """Begin a request; return the error, or `None` if it is allowed."""
        return self.allowance(*args, **options).begin()


def outcome(call, *arguments):
    """Return the error with which a call refuses, or `None`."""
    try:
        call(*arguments)
    except (Overloaded, ForbiddenError) as error:
        return error
    return None


def requests(key="tenant", **figures):
    """Return settings with one limit, of requests."""
    return {"limits": [{"key": key, "requests_per_second": 10, **figures}]}
