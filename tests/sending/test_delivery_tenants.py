"""What a delivery counts as delivered and dropped for each tenant."""

from __future__ import annotations

import pytest

from otelwp_agent.config.blocks import Retry
from otelwp_agent.errors import MalformedError, PermanentError
from otelwp_agent.model.batch import merge
from otelwp_agent.model.receipt import HELD
from tests.kit.deliveries import DOWN, One
from tests.kit.senders import a_request


def counted(one: One) -> list[tuple[str, str, int, int]]:
    return list(one.exporter.context.deliveries)


@pytest.mark.parametrize(
    ("answer", "delivered", "dropped"),
    [(0, 3, 0), (1, 2, 1), (3, 0, 3), (PermanentError("no"), 0, 3), (ZeroDivisionError(), 0, 3)],
)
def test_items_are_counted_by_their_outcome(answer, delivered, dropped):
    one = One(answer)
    one.send(a_request("a", "b", "c", tenant="shop"))
    assert counted(one) == [("test/one", "shop", delivered, dropped)]


def test_each_tenant_has_its_own_sums():
    one = One(0, PermanentError("no"), 0, 0)
    for tenant in ("shop", "shop", "blog", ""):
        one.send(a_request("a", tenant=tenant))
    assert sorted(counted(one)) == [("test/one", "blog", 1, 0), ("test/one", "shop", 1, 1)]


def test_a_batch_that_waits_for_its_retry_is_not_counted():
    one = One(DOWN, retry=Retry(randomization_factor=0, max_elapsed_time="8s"))
    one.send(a_request("a", tenant="shop"))
    assert counted(one) == []


def test_a_batch_without_retries_left_is_dropped():
    one = One(DOWN, retry=Retry(randomization_factor=0, max_elapsed_time="1s"))
    one.send(a_request("a", "b", tenant="shop"))
    assert counted(one) == [("test/one", "shop", 0, 2)]


def test_parts_of_a_batch_are_counted_once_each_is_settled():
    one = One(MalformedError("400"), 0, MalformedError("400"))
    one.send(merge([a_request(name, tenant="shop") for name in "ab"]))
    assert counted(one) == []
    one.send_next()
    one.send_next()
    assert counted(one) == [("test/one", "shop", 1, 1)]


@pytest.mark.parametrize(("kept", "dropped"), [(False, 2), (True, 0)])
def test_when_the_agent_stops_only_what_no_journal_keeps_is_dropped(kept, dropped):
    one, batch = One(DOWN, journaled=kept), a_request("a", "b", tenant="shop")
    if kept:
        batch.shares[0][0].claim = HELD
    one.dispatcher.hurry()
    one.send(batch)
    assert sum(each[3] for each in counted(one)) == dropped
