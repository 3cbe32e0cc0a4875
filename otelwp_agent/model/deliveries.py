"""Count the items that each exporter has delivered and dropped, by tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Deliveries:
    """Items by exporter and tenant, since the start of the agent. Items without a tenant are not counted.

    Its size is bounded by the exporters and the tenants, as that of the ledgers.
    """

    def __init__(self) -> None:
        """Start with nothing delivered."""
        self._sums: dict[tuple[str, str], list[int]] = {}

    def __iter__(self) -> Iterator[tuple[str, str, int, int]]:
        """Yield exporter, tenant, items delivered and items dropped."""
        for (exporter, tenant), (delivered, dropped) in self._sums.items():
            yield exporter, tenant, delivered, dropped

    def add(self, exporter: str, tenant: str, delivered: int, dropped: int) -> None:
        """Count items of one batch."""
        if not tenant:
            return
        sums = self._sums.get((exporter, tenant))
        if sums is None:
            sums = self._sums[exporter, tenant] = [0, 0]
        sums[0] += delivered
        sums[1] += dropped
