import asyncio
from types import SimpleNamespace

import pytest

from otelwp_agent.component import Kind
from otelwp_agent.testing.contract import BrokenContractError, contract
from otelwp_agent.testing.requirement import STAGES, require

SUBJECT = SimpleNamespace(name="processors/acme")


@contract(kinds=STAGES)
def holds(subject):
    """Hold.

    Because of this.
    """
    require(subject is SUBJECT, "another subject")


@contract()
async def breaks(subject):
    """Never break."""
    await asyncio.sleep(0)
    require(condition=False, happened="it broke")


@contract()
def raises(subject):
    """Never raise."""
    raise KeyError("a bug")


def test_the_docstring_is_the_rule_and_the_reason():
    assert (holds.name, holds.rule, holds.why) == ("holds", "Hold.", "Because of this.")
    assert [*holds.kinds] == [*STAGES]
    assert [*breaks.kinds] == [*Kind]


def test_a_broken_contract_is_explained():
    holds.check(SUBJECT)
    with pytest.raises(BrokenContractError, match="What happened: it broke") as caught:
        breaks.check(SUBJECT)
    assert "docs/topics/contracts.md#breaks" in str(caught.value)


def test_the_exception_of_the_component_is_kept_and_the_rule_added():
    with pytest.raises(KeyError) as caught:
        raises.check(SUBJECT)
    (note,) = caught.value.__notes__
    assert note.startswith("processors/acme breaks the contract `raises`.\n  The rule:      Never raise.")
