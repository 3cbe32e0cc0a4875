"""Interface of the extension `control_store` for other extensions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelwp_agent.control.directory import TenantDirectory
    from otelwp_agent.control.last_used import LastUsed
    from otelwp_agent.control.store_thread import StoreThread


class ControlAccess(ABC):
    """Access to a control store. The properties may be used after the extension was started."""

    @property
    @abstractmethod
    def directory(self) -> TenantDirectory:
        """Tenants, plans and API keys in memory, for the path of requests."""

    @property
    @abstractmethod
    def used(self) -> LastUsed:
        """Collects when API keys are used."""

    @property
    @abstractmethod
    def store(self) -> StoreThread:
        """Runs transactions on the store, for the control plane. The path of requests never waits for it."""
