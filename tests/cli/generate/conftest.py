"""Tests of a run use simulated time."""

from otelwp_agent.testing import FakeTimeLoop


def pytest_asyncio_loop_factories(item):
    return {"simulated": FakeTimeLoop}
