"""The contract suite: as a test class for pytest, and as a function for any other test runner."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from otelwp_agent.testing.contracts import CONTRACTS, contracts_for
from otelwp_agent.testing.subject import Subject, decompressed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otelwp_agent.component import Factory
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.testing.contract import Contract


class ComponentContract:
    """Base of test classes for a component: set `factory`, and pytest runs one test for each contract.

    Example::

        from acme_redact import FACTORY
        from otelwp_agent.testing import ComponentContract

        class TestAcmeRedact(ComponentContract):
            factory = FACTORY
    """

    factory: ClassVar[Factory]
    settings: ClassVar[Mapping[str, Any]] = {}
    """Settings that replace those of the docstring's example, such as the address of a server in the test."""
    requests: ClassVar[Mapping[Signal, Sequence[bytes]]] = {}
    """Serialized OTLP requests that are added to the corpus, for components that act on other data."""
    without: ClassVar[Mapping[str, str]] = {}
    """Contracts that do not apply to this component: name → reason."""

    def open_body(self, batch: Batch) -> bytes:
        """Return the plain body of a batch that the component has encoded; override it if the body is encrypted."""
        return decompressed(batch)

    def pytest_generate_tests(self, metafunc: Any) -> None:  # noqa: ANN401 - pytest's Metafunc: pytest is not imported
        """Parametrize `test_contract` with the contracts for components of this kind; called by pytest."""
        if "contract" in metafunc.fixturenames:
            chosen = chosen_contracts(self.factory, self.without)
            metafunc.parametrize("contract", chosen, ids=[each.name for each in chosen])

    def test_contract(self, contract: Contract, tmp_path: Path) -> None:
        """Check one contract."""
        contract.check(Subject(self.factory, tmp_path, self.settings, self.requests, self.open_body))


def check_component(
    factory: Factory,
    *,
    settings: Mapping[str, Any] | None = None,
    requests: Mapping[Signal, Sequence[bytes]] | None = None,
    opens: Callable[[Batch], bytes] | None = None,
    without: Mapping[str, str] | None = None,
) -> None:
    """Check every contract for a component; raise an `ExceptionGroup` with an exception for each broken contract.

    The arguments are those of `ComponentContract`; `opens` is its `open_body`. Call this without a running event loop.
    """
    broken: list[Exception] = []
    for contract in chosen_contracts(factory, without or {}):
        with tempfile.TemporaryDirectory() as folder:
            try:
                contract.check(Subject(factory, Path(folder), settings, requests, opens))
            except Exception as error:  # noqa: BLE001 - all of them are reported together
                broken.append(error)
    if broken:
        raise ExceptionGroup(f"{factory.kind.value}/{factory.type} breaks {len(broken)} contracts", broken)


def chosen_contracts(factory: Factory, without: Mapping[str, str]) -> list[Contract]:
    """Return the contracts for a component except those in `without`; raise `ValueError` for an unknown name."""
    names = [contract.name for contract in CONTRACTS]
    for name in without:
        if name not in names:
            raise ValueError(f"there is no contract {name!r}; the contracts are {', '.join(names)}")
    return [contract for contract in contracts_for(factory) if contract.name not in without]
