"""How long the chaos tests may take together, and the seed that they draw from."""

import os
import random

import pytest

SHARES = {
    "test_bytes": 0.05,
    "test_kill": 0.25,
    "test_disk": 0.1,
    "test_branches": 0.1,
    "test_sealed": 0.25,
    "test_balancing": 0,
}
"""The part of `CHAOS_SECONDS` that one test of a file may spend on its load."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "chaos":
            item.add_marker(pytest.mark.chaos)
            item.add_marker(pytest.mark.timeout(420 + 3 * load_seconds(item.path)))


def load_seconds(path):
    """Return how long the load of one test of a file goes on."""
    return float(os.environ.get("CHAOS_SECONDS") or 120) * SHARES[path.stem]


@pytest.fixture
def seconds(request):
    """How long the load of this test goes on."""
    return load_seconds(request.path)


@pytest.fixture
def seed():
    """What every chance of this run is drawn from, printed so that it can be had again (`CHAOS_SEED`)."""
    number = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))
    print(f"CHAOS_SEED={number}")  # noqa: T201 - shown when the test fails
    return number


@pytest.fixture
def tell(capsys):
    """Print a paragraph that is seen even when the test passes."""

    def say(text):
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201 - what this run has shown

    return say
