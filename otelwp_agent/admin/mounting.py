"""Interface of the extension `admin_api` for other extensions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.admin.operation import ApiOperation


class AdminRoutes(ABC):
    """Accepts operations of other extensions for the admin API."""

    @abstractmethod
    def mount(self, owner: str, operations: Sequence[ApiOperation]) -> None:
        """Add the operations of `owner`, or replace them; raise `ValueError` if another owner has one of them."""

    @abstractmethod
    def unmount(self, owner: str) -> None:
        """Remove the operations of `owner`."""
