"""Access to a tenant directory that a test fills, without a control store."""

from otelwp_agent.control.access import ControlAccess
from otelwp_agent.control.api_keys import Hasher
from otelwp_agent.control.directory import Directory, TenantDirectory
from otelwp_agent.control.last_used import LastUsed

HASHER = Hasher(b"p" * 32)


class Access(ControlAccess):
    def __init__(self):
        self._directory, self._used = TenantDirectory(HASHER), LastUsed()

    directory = property(lambda self: self._directory)
    used = property(lambda self: self._used)
    store = None

    def use(self, plans, *tenants):
        """Replace the directory by one with these plans and tenants, without keys."""
        numbers = {tenant.id: number for number, tenant in enumerate(tenants)}
        self._directory.replace(Directory(self._directory.version + 1, plans, tenants, numbers))
