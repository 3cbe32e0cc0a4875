"""What one tenant may use of the journal."""

import pytest

from otelwp_agent.errors import Overloaded

BODY = bytes(100_000)


async def test_a_tenant_that_fills_its_share_is_refused_and_others_are_not(live):
    life = live(max_size="1MiB", max_tenant_share=0.25)
    (first,) = await life.put(BODY, tenant="large")
    await life.put(BODY, tenant="large")
    with pytest.raises(Overloaded, match="tenant large fills its share of the journal"):
        await life.put(BODY, tenant="large")
    assert life.registry.value("otelwp_journal_refused_entries", reason="tenant_journal_full") == 1
    await life.put(bytes(60_000), tenant="large")
    for tenant in ("small", ""):
        (request,) = await life.put(BODY, tenant=tenant)
        assert request.entry is not None
    first.settle()
    await life.put(bytes(50_000), tenant="large")


async def test_what_a_tenant_may_use_is_known_after_a_restart(live):
    first = live(max_size="1MiB", max_tenant_share=0.25)
    await first.put(BODY, tenant="large")
    await first.put(BODY, tenant="large")
    first.kill()
    with pytest.raises(Overloaded, match="tenant large fills its share of the journal"):
        await live(max_size="1MiB", max_tenant_share=0.25).put(BODY, tenant="large")


async def test_a_tenant_may_use_all_of_the_journal_if_its_share_is_1(live):
    life = live(max_size="1MiB", max_tenant_share=1)
    for _ in range(8):
        (request,) = await life.put(BODY, tenant="large")
        assert request.entry is not None
