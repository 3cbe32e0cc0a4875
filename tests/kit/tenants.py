"""Tenants and their API keys in a control store, created and revoked while agents use the store."""

from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.opening import StorePlace
from otelwp_agent.control.operations import keys, plans, tenants

ACTOR = Actor("test")


class Tenants:
    """The control store at `url`, which is created; `pepper_file` has its pepper."""

    def __init__(self, url, pepper_file):
        self.url, self.pepper_file = url, pepper_file
        self._place = StorePlace(url, str(pepper_file))
        self._place.migrate()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._place.store.close()

    def plan(self, name, **limits):
        """Create a plan with these limits."""
        with self._place.store.write() as connection:
            plans.set_plan(connection, ACTOR, name, tier="enterprise", limits=limits)

    def create(self, tenant, plan="free"):
        """Create a tenant without keys."""
        with self._place.store.write() as connection:
            tenants.create_tenant(connection, ACTOR, tenant, plan=plan)

    def add(self, tenant, plan="free"):
        """Create a tenant; return the text of its first key."""
        self.create(tenant, plan)
        return self.key(tenant)[1]

    def suspend(self, tenant):
        """Refuse the requests of a tenant."""
        with self._place.store.write() as connection:
            tenants.suspend_tenant(connection, ACTOR, tenant)

    def key(self, tenant):
        """Create a key of a tenant; return its id and its text."""
        with self._place.store.write() as connection:
            created = keys.create_key(connection, ACTOR, self._place.hasher(connection), tenant)
        return created.key.id, created.text

    def revoke(self, id_):
        """Revoke a key."""
        with self._place.store.write() as connection:
            keys.revoke_key(connection, ACTOR, id_)
