import pytest

from otelwp_agent.testing import ComponentContract, check_component
from otelwp_agent.testing.contracts import contracts_for
from otelwp_agent.testing.suite import chosen_contracts
from tests.testing import acme


class TestAcme(ComponentContract):
    """The suite as a third party uses it."""

    factory = acme.FACTORY
    without = {"port_in_use_is_reported": "it listens nowhere"}  # noqa: RUF012 - as in a third party's test


def test_a_good_component_passes():
    check_component(acme.FACTORY)


def test_all_broken_contracts_are_reported_together():
    with pytest.raises(ExceptionGroup, match="processors/acme breaks 2 contracts") as caught:
        check_component(acme.factory_of(acme.RemovesNothing))
    assert len(caught.value.exceptions) == 2


def test_a_contract_can_be_left_out_by_name():
    names = [contract.name for contract in contracts_for(acme.FACTORY)]
    assert "an_exporter_never_settles" not in names
    chosen = chosen_contracts(acme.FACTORY, {"shares_add_up": "a reason"})
    assert [contract.name for contract in chosen] == [name for name in names if name != "shares_add_up"]
    with pytest.raises(ValueError, match="there is no contract 'no_such_name'"):
        chosen_contracts(acme.FACTORY, {"no_such_name": "a reason"})


def test_settings_and_requests_are_passed_on():
    with pytest.raises(ExceptionGroup) as caught:
        check_component(acme.FACTORY, settings={"remove": []})
    assert "effects_are_as_declared" in str(caught.value.exceptions[0])
