"""Failures of one tenant while the attempts of others succeed."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from otelwp_agent.errors import Overloaded, RetryableError
from otelwp_agent.sending.attempts import EVIDENCE, Successes
from otelwp_agent.sending.breaker import Permit, State
from tests.kit.attempts import AttemptStage
from tests.kit.senders import scripted


def test_successes_of_a_tenant_prove_nothing_about_its_own_attempts():
    successes = Successes()
    assert successes.of_another("") == successes.of_another("a") == -inf
    successes.add("a", 1.0)
    assert (successes.of_another("a"), successes.of_another("b"), successes.of_another("")) == (-inf, 1.0, 1.0)
    successes.add("a", 2.0)
    assert (successes.of_another("a"), successes.of_another("b")) == (-inf, 2.0)
    successes.add("b", 3.0)
    successes.add("b", 4.0)
    assert [successes.of_another(tenant) for tenant in "abc"] == [4.0, 2.0, 4.0]
    successes.add("", 5.0)
    assert [successes.of_another(tenant) for tenant in ("a", "b", "")] == [5.0, 5.0, 4.0]


class Failing(AttemptStage):
    """Succeed once, for the tenant `works`, and fail after that."""

    def __init__(self, loop, error) -> None:
        super().__init__(loop, scripted(0, *[error] * 9))
        self.once(tenant="works")

    def fail(self, tenant: str, *, after: float = 0.0, permit: Permit = Permit.TRY) -> int:
        """Let an attempt fail some seconds later; return the failures that the breaker has counted."""
        self.loop.run_until_complete(asyncio.sleep(after))
        with pytest.raises(RetryableError):
            self.once(permit, tenant=tenant)
        return self.breaker._failures


BUSY = RetryableError("busy")


def test_a_failure_of_a_tenant_is_ignored_while_another_tenant_succeeds(loop):
    stage = Failing(loop, BUSY)
    assert (stage.fail("broken"), stage.concurrency.limit) == (0, 8)
    assert (stage.fail("broken", after=EVIDENCE), stage.concurrency.limit) == (0, 8)


def test_an_overload_of_a_tenant_is_ignored_while_another_tenant_succeeds(loop):
    stage = Failing(loop, Overloaded("too many requests", retry_after=60))
    assert (stage.fail("broken"), stage.concurrency.limit) == (0, 8)
    assert stage.breaker.acquire(loop.time()) is Permit.TRY


def test_a_success_of_long_ago_proves_nothing(loop):
    stage = Failing(loop, BUSY)
    assert (stage.fail("broken", after=EVIDENCE * 1.25), stage.concurrency.limit) == (1, 4)


@pytest.mark.parametrize("tenant", ["works", ""])
def test_a_failure_of_the_same_tenant_or_of_none_counts(loop, tenant):
    stage = Failing(loop, BUSY)
    assert (stage.fail(tenant), stage.concurrency.limit) == (1, 4)


def test_the_probe_of_a_tenant_decides_for_all(loop):
    stage = Failing(loop, BUSY)
    for _ in range(5):
        stage.breaker.failed(Permit.TRY, 0)
    permit = stage.breaker.acquire(5)
    assert permit is Permit.PROBE
    stage.fail("broken", permit=permit)
    assert stage.breaker.state is State.OPEN


def test_a_tenant_that_uses_all_sends_but_one_raises_the_limit(loop):
    async def answer(_: list[str]) -> int:
        await asyncio.sleep(0.01)
        return 0

    stage = AttemptStage(loop, answer)
    stage.concurrency.failed(0, 0)
    for sending, limit in ((2, 4), (3, 5)):
        stage.concurrency.sending = sending
        for _ in range(6):
            stage.once(tenant="a")
        assert stage.concurrency.limit == limit


def throttled(loop, *answers) -> AttemptStage:
    """Return attempts at a backend that throttles tenants, after four failures."""
    stage = AttemptStage(loop, scripted(*answers))
    stage.exporter.throttled_by_tenant = True
    for _ in range(4):
        stage.breaker.failed(Permit.TRY, 0)
    return stage


def test_a_backend_that_throttles_one_tenant_works_for_the_others(loop):
    stage = throttled(loop, Overloaded("too many requests", retry_after=60))
    with pytest.raises(Overloaded):
        stage.once(tenant="a")
    assert stage.breaker.acquire(loop.time()) is Permit.TRY
    assert (stage.breaker._failures, stage.concurrency.limit) == (0, 8), "it has answered"


def test_a_backend_that_throttles_tenants_throttles_all_data_without_one(loop):
    stage = throttled(loop, Overloaded("too many requests", retry_after=60))
    with pytest.raises(Overloaded):
        stage.once()
    assert (stage.breaker.acquire(loop.time()), stage.breaker.until) == (Permit.NONE, 60)
    assert stage.concurrency.limit == 4


def test_other_failures_of_a_tenant_count_at_a_backend_that_throttles_tenants(loop):
    stage = throttled(loop, BUSY)
    with pytest.raises(RetryableError):
        stage.once(tenant="a")
    assert (stage.breaker.state, stage.concurrency.limit) == (State.OPEN, 4)
