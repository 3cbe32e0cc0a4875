"""Each way to break a component is noticed by the contract that is about it."""

import os

import pytest
from pydantic import Field

from otelwp_agent.component import ComponentConfig, Effect, Reads
from otelwp_agent.testing import BrokenContractError, check_component
from otelwp_agent.testing.contracts import CONTRACTS
from tests.testing import acme


class Undocumented(ComponentConfig):
    remove: list[str] = Field(default_factory=list)


class Lenient(ComponentConfig, extra="ignore"):
    remove: list[str] = Field(default_factory=list)
    """Keys."""


class Thawed(ComponentConfig, frozen=False):
    remove: list[str] = Field(default_factory=list)
    """Keys."""


@pytest.fixture(autouse=True)
def _docstrings(monkeypatch):
    """The example of the configurations above is that of `acme`."""
    monkeypatch.setattr("tests.testing.test_contracts.__doc__", acme.__doc__)


def broken(factory, **arguments):
    """Return the errors of the suite by the name of the contract."""
    try:
        check_component(factory, **arguments)
    except ExceptionGroup as group:
        return {name: error for error in group.exceptions for name in names_in(error)}
    return {}


def names_in(error):
    text = "\n".join([str(error), *getattr(error, "__notes__", [])])
    return [contract.name for contract in CONTRACTS if f"`{contract.name}`" in text]


def test_a_good_component_keeps_every_contract():
    assert broken(acme.FACTORY) == {}


def test_threads_of_the_event_loop_may_stay():
    assert broken(acme.factory_of(acme.UsesThreadsOfTheLoop)) == {}


@pytest.mark.parametrize(
    ("factory", "names"),
    [
        (acme.factory_of(acme.RemovesNothing), ["effects_are_as_declared", "every_entry_of_the_example_matters"]),
        (acme.factory_of(acme.IgnoresTheSecond), ["every_entry_of_the_example_matters"]),
        (acme.factory_of(acme.ForgetsUnknownFields), ["unknown_fields_survive"]),
        (acme.factory_of(acme.SettlesTwice), ["every_item_is_settled_once"]),
        (acme.factory_of(acme.LosesBatches), ["every_item_is_settled_once", "effects_are_as_declared"]),
        (acme.factory_of(acme.DropsAsLost, effects=frozenset(Effect)), ["effects_are_as_declared"]),
        (acme.factory_of(acme.ChangesTheBatch), ["a_batch_is_not_changed"]),
        (acme.factory_of(acme.CountsWrong), ["shares_add_up"]),
        (acme.factory_of(acme.HidesRefusals), ["refusals_keep_their_kind"]),
        (acme.factory_of(acme.KeepsAFile), ["nothing_stays_open"]),
        (acme.factory_of(acme.OpensEarly), ["nothing_stays_open"]),
        (acme.factory_of(acme.ShutsDownOnce), ["shutdown_works_at_any_time"]),
        (acme.factory_of(effects=frozenset()), ["effects_are_as_declared"]),
        (acme.factory_of(effects=frozenset(Effect)), ["effects_are_as_declared"]),
        (acme.factory_of(reads=Reads.NOTHING), ["malformed_bodies_break_nothing"]),
        (acme.factory_of(reads="full"), ["factory_is_complete"]),
        (acme.factory_of(config=Undocumented), ["keys_are_documented"]),
        (acme.factory_of(config=Lenient), ["unknown_keys_are_refused"]),
        (acme.factory_of(config=Thawed), ["configuration_is_frozen"]),
    ],
    ids=lambda value: value.build.__name__ if hasattr(value, "build") else "-".join(value),
)
def test_broken_contracts_are_named(factory, names):
    found = broken(factory)
    while acme.OPENED:
        os.close(acme.OPENED.pop())
    assert set(names) <= found.keys(), found


def test_the_message_names_the_component_the_rule_and_the_page():
    error = broken(acme.factory_of(acme.IgnoresTheSecond))["every_entry_of_the_example_matters"]
    assert isinstance(error, BrokenContractError)
    assert str(error).splitlines() == [
        "processors/acme breaks the contract `every_entry_of_the_example_matters`.",
        "  What happened: the result for the corpus is the same with and without `remove[1]`",
        "  The rule:      Give every list item in the example an effect.",
        "  Read about it: docs/topics/contracts.md#every_entry_of_the_example_matters",
    ]


def test_a_missing_example_is_reported(monkeypatch):
    monkeypatch.setattr("tests.testing.acme.__doc__", "No example.")
    assert "no block `Example::`" in str(broken(acme.FACTORY)["example_loads"])


def test_every_contract_has_a_rule_and_a_reason():
    for contract in CONTRACTS:
        assert contract.rule.endswith("."), contract.name
        assert contract.why, contract.name
    assert len({contract.name for contract in CONTRACTS}) == len(CONTRACTS)
