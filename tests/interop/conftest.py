"""What the tests of one peer share."""

import pytest
from peers import golang

from tests.interop.process import have


@pytest.fixture(scope="session")
def the_collector():
    """Skip at once what cannot be tried without the Collector."""
    have(golang.collector)
