"""A running `health_check`, and an issuer of tokens, for the files that test with them."""

import pytest

from otelwp_agent.extensions import health_check
from otelwp_agent.testing import FakeClock
from tests.kit.health_checks import Host, build
from tests.kit.oidc import Issuer, SigningKey


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def clock():
    return FakeClock(1000.0)


@pytest.fixture
async def started(host, clock, monkeypatch):
    """Start an extension that asks for a new snapshot at each request, unless `fresh` seconds are given."""
    monkeypatch.setattr(health_check, "FRESH", 0.0)
    running = []

    async def start(**settings):
        extension = build(host, clock, **settings)
        await extension.start()
        running.append(extension)
        return extension

    yield start
    for extension in running:
        await extension.shutdown()


@pytest.fixture
def issuer():
    with Issuer(SigningKey("k1")) as issuer:
        yield issuer
