"""Tests for component authors: the contracts of every component, and fakes of the parts around a component.

Example::

    from acme_redact import FACTORY
    from otelwp_agent.testing import ComponentContract

    class TestAcmeRedact(ComponentContract):
        factory = FACTORY

Install it with `otelwp-agent[testing]`, which brings pytest. The agent itself never imports this package.
docs/topics/writing-a-component.md shows how to use it; docs/topics/contracts.md lists the contracts.
"""

from __future__ import annotations

from otelwp_agent.component import NoHost
from otelwp_agent.testing.contract import BrokenContractError
from otelwp_agent.testing.corpus import batch_of, make_corpus, request
from otelwp_agent.testing.fake_time import FakeTimeLoop, run
from otelwp_agent.testing.fakes import Catcher, FakeClock, make_context
from otelwp_agent.testing.items import Item, items_of, messages_of
from otelwp_agent.testing.subject import Subject
from otelwp_agent.testing.suite import ComponentContract, check_component

__all__ = [
    "BrokenContractError",
    "Catcher",
    "ComponentContract",
    "FakeClock",
    "FakeTimeLoop",
    "Item",
    "NoHost",
    "Subject",
    "batch_of",
    "check_component",
    "items_of",
    "make_context",
    "make_corpus",
    "messages_of",
    "request",
    "run",
]
