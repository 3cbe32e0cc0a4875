"""An authenticator and a limiter that a test controls, for the gates of real servers."""

import structlog

from otelwp_agent.errors import ForbiddenError, Overloaded, UnauthenticatedError
from otelwp_agent.transport.authentication import Client, ServerAuthenticator
from otelwp_agent.transport.gate import Gate
from otelwp_agent.transport.limiting import RequestAllowance, RequestLimiter


class Keys(ServerAuthenticator):
    """Accepts the keys of `clients` in the header `x-api-key`."""

    secret_headers = frozenset({"x-api-key"})

    def __init__(self, **clients):
        self.clients = clients
        self.version = 0
        self.asked = []
        self.error = None

    def authenticate(self, headers, peer, certificate):
        self.asked.append((peer, certificate))
        if self.error is not None:
            raise self.error
        client = self.clients.get(headers.get("x-api-key", ""))
        if client is None:
            raise UnauthenticatedError("Bearer", 'ApiKey header="X-API-Key"')
        return client


class Names(Keys):
    """Accepts clients by the common name of their certificate."""

    secret_headers = frozenset()
    by_headers = False

    def authenticate(self, headers, peer, certificate):
        return super().authenticate({"x-api-key": certificate.common_name if certificate else ""}, peer, certificate)


class Allowance(RequestAllowance):
    def __init__(self, limiter, sender):
        self.limiter, self.sender = limiter, sender

    def begin(self):
        if self.limiter.error is not None:
            raise self.limiter.error
        if self.limiter.in_progress >= self.limiter.most:
            return Overloaded("limit `concurrent` is reached", retry_after=7.0, reason="concurrent")
        self.limiter.in_progress += 1
        self.limiter.began.append(self.sender)
        return None

    def end(self):
        self.limiter.in_progress -= 1
        self.limiter.ended += 1

    def withdraw(self):
        self.limiter.in_progress -= 1
        self.limiter.began.pop()

    def charge(self, items, size):
        if self.limiter.items + items > self.limiter.most_items:
            raise Overloaded("limit `items` is reached", retry_after=2.5, reason="items")
        self.limiter.items += items
        self.limiter.size += size

    def refund(self, items, size):
        self.limiter.items -= items
        self.limiter.size -= size


class Limiter(RequestLimiter):
    def __init__(self, most=99, most_items=10**9):
        self.most, self.most_items = most, most_items
        self.in_progress = self.ended = self.items = self.size = 0
        self.began, self.failures, self.banned = [], [], set()
        self.error = None

    def check(self, peer):
        if peer in self.banned:
            raise ForbiddenError("this address is banned", reason="banned")

    def allowance(self, client, peer, route):
        return Allowance(self, (client.tenant if client is not None else None, peer, route))

    def authentication_failed(self, peer, error):
        self.failures.append((peer, error.reason))


def shop(**settings):
    return Client(**{"tenant": "shop", "credential": "k1", **settings})


def gate(authenticator=None, *limiters, **options):
    return Gate(authenticator, limiters, log=structlog.get_logger(), **options)
