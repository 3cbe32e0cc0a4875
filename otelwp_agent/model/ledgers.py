"""Ledgers of all pipelines: one for each pipeline, receiver and tenant. Sums over them are calculated on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.model.receipt import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator


class Ledgers:
    """All accounts. They are kept across reloads, and with a journal across restarts."""

    def __init__(self) -> None:
        """Start without accounts."""
        self._pipelines: dict[str, dict[tuple[str, str], Ledger]] = {}

    def __iter__(self) -> Iterator[Ledger]:
        """Yield every account."""
        for accounts in self._pipelines.values():
            yield from accounts.values()

    def of_pipeline(self, pipeline: str) -> dict[tuple[str, str], Ledger]:
        """Return the accounts of a pipeline by receiver and tenant; always the same dictionary, updated in place."""
        return self._pipelines.setdefault(pipeline, {})

    def get(self, pipeline: str, receiver: str, tenant: str) -> Ledger:
        """Return an account; create it if it does not exist."""
        accounts = self.of_pipeline(pipeline)
        ledger = accounts.get((receiver, tenant))
        if ledger is None:
            ledger = accounts[receiver, tenant] = Ledger((pipeline, receiver, tenant))
        return ledger
