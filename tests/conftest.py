"""What every test shares: how hypothesis behaves, gRPC imported as the agent imports it, logs as they begin."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

from otelwp_agent.telemetry import logging

# Before any test imports gRPC, or its core writes what it likes to stderr for as long as the process lives.
from otelwp_agent.transport import grpc_runtime  # noqa: F401

# Machines differ and share cores: a slow example is not a wrong one. CI draws the same examples each time, so that a
# failure there can be had again here.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("house"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "house")


def pytest_collection_finish():
    """Exclude the collected tests, millions of objects, from the garbage collections of the tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _logs_as_they_begin():
    """Undo what a command that a test runs in this process does to the level of the logs."""
    level = logging._Logger.__bases__
    yield
    if logging._Logger.__bases__ != level:
        logging.configure()
