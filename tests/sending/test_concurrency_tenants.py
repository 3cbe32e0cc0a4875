"""How many of the sends that a limit allows one tenant may use."""

from __future__ import annotations

import pytest

from otelwp_agent.sending.concurrency import Concurrency


def at(limit: int, sending: int) -> Concurrency:
    """Return a limit with so many sends under way."""
    concurrency = Concurrency(1, limit)
    concurrency.sending = sending
    return concurrency


def begun(limit: int, tenants: int) -> list[int]:
    """Let tenants begin one send in turn until none may; return how many each has."""
    own, concurrency = [0] * tenants, at(limit, 0)
    more = True
    while more:
        more = False
        for tenant in range(tenants):
            if (not own[tenant] and concurrency.sending < limit) or concurrency.allows(own[tenant]):
                own[tenant] += 1
                concurrency.sending += 1
                more = True
    return own


@pytest.mark.parametrize(("limit", "most"), [(2, 1), (4, 3), (10, 9), (100, 99)])
def test_a_tenant_alone_leaves_one_send(limit, most):
    assert begun(limit, 1) == [most]


@pytest.mark.parametrize(("others", "own"), [(1, 8), (4, 5), (8, 1), (9, 0)])
def test_sends_of_others_reduce_what_a_tenant_may_begin(others, own):
    """A tenant may use 9/10 of the sends that the others leave: 8.1, 5.4, 1.8 and 0.9."""
    assert at(10, others + own).allows(own) is False
    if own:
        assert at(10, others + own - 1).allows(own - 1) is True


def test_several_tenants_get_the_same():
    assert begun(100, 3) == [33, 33, 33]
    assert begun(10, 5) == [2, 2, 2, 2, 1]


@pytest.mark.parametrize(
    ("tenant", "sending", "busy"), [("", 9, False), ("", 10, True), ("a", 8, False), ("a", 9, True), ("a", 10, True)]
)
def test_a_sender_is_busy_when_it_may_begin_no_other_send(tenant, sending, busy):
    assert at(10, sending).is_busy(tenant) is busy
