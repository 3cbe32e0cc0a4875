"""A store with tenants."""

import pytest

from otelwp_agent.control.operations import tenants


@pytest.fixture
def fleet(store, actor):
    """Return a connection to a store with two tenants, in a transaction."""
    with store.write() as connection:
        for tenant in ("acme", "globex"):
            tenants.create_tenant(connection, actor, tenant, attributes={"email": f"{tenant}@example.com"})
        yield connection
