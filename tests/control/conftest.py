"""Stores for the tests: each test that uses `store` runs on SQLite, and with `make interop` on PostgreSQL too."""

import pytest

from otelwp_agent.control.api_keys import Hasher
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.store import Store

ALICE = Actor("operator:alice", "request-1")


@pytest.fixture(scope="session")
def postgresql():
    from tests.interop.postgresql import Postgresql

    server = Postgresql()
    try:
        with server:
            yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.interop)])
def url(request, tmp_path):
    """Return the URL of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/control.db"
    return request.getfixturevalue("postgresql").database()


@pytest.fixture
def store(url):
    store = Store(url, patience=0.3)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def hasher():
    return Hasher(b"p" * 32)


@pytest.fixture
def actor():
    return ALICE
