"""All contracts. `contracts_for` returns those that apply to a component."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.testing.contracts import batches, declarations, effects, lifecycle, resources

if TYPE_CHECKING:
    from otelwp_agent.component import Factory
    from otelwp_agent.testing.contract import Contract

CONTRACTS: tuple[Contract, ...] = (
    *declarations.CONTRACTS,
    *lifecycle.CONTRACTS,
    *resources.CONTRACTS,
    *batches.CONTRACTS,
    *effects.CONTRACTS,
)


def contracts_for(factory: Factory) -> list[Contract]:
    """Return the contracts for components of the factory's kind."""
    return [contract for contract in CONTRACTS if factory.kind in contract.kinds]
