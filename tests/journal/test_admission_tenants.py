"""The share of the journal that one tenant may use: on disk, and in memory while it waits for the disk."""

from types import SimpleNamespace

import pytest
import structlog

from otelwp_agent.errors import Overloaded
from otelwp_agent.fair_share import TenantUse
from otelwp_agent.journal.admission import MAX_UNWRITTEN, Admission
from otelwp_agent.journal.failure import Failure
from otelwp_agent.journal.reserve import Reserve


@pytest.fixture
def admission(tmp_path):
    """A journal of 1 000 bytes; a tenant alone may use half of it."""
    failure = Failure(Reserve(tmp_path, structlog.get_logger()), structlog.get_logger())
    return Admission(SimpleNamespace(stored=0, used=0, use=TenantUse()), failure, 1000, 0.5)


def store(admission, tenant, size):
    admission._entry_store.used += size
    admission._entry_store.use.add(tenant, size)


def refusal(admission, tenant, size):
    with pytest.raises(Overloaded) as raised:
        admission.admit_tenant(tenant, size)
    return raised.value


def test_a_tenant_alone_may_use_its_share_of_the_disk(admission):
    store(admission, "acme", 300)
    admission.admit_tenant("acme", 200)
    error = refusal(admission, "acme", 201)
    assert str(error) == (
        "tenant acme fills its share of the journal (300 of 500 bytes): what it sent must be delivered first; "
        "service.journal.max_tenant_share is the share"
    )
    assert (error.retry_after, error.reason, error.tenant) == (5.0, "tenant_journal_full", "acme")


def test_its_bodies_that_wait_to_be_written_count(admission):
    store(admission, "acme", 300)
    admission.add("acme", 100)
    admission.admit_tenant("acme", 100)
    assert refusal(admission, "acme", 101).reason == "tenant_journal_full"
    admission.remove("acme", 100)
    admission.admit_tenant("acme", 200)
    assert admission.unwritten == 0


def test_the_space_that_other_tenants_use_is_not_free(admission):
    store(admission, "acme", 300)
    store(admission, "shop", 100)
    admission.add("shop", 100)
    admission.add("acme", 50)
    admission.admit_tenant("acme", 50)
    assert refusal(admission, "acme", 51).reason == "tenant_journal_full"
    admission.admit_tenant("shop", 125)
    assert refusal(admission, "shop", 126).tenant == "shop"


def test_a_tenant_that_uses_nothing_may_send_a_request_of_any_size(admission):
    store(admission, "acme", 900)
    admission.admit_tenant("shop", 600)


@pytest.mark.parametrize(("tenant", "share"), [("", 0.5), ("acme", 1.0)])
def test_without_a_tenant_or_with_a_share_of_1_there_is_no_limit(admission, tenant, share):
    admission._share = share
    store(admission, tenant, 900)
    admission.add(tenant, MAX_UNWRITTEN)
    admission.admit_tenant(tenant, MAX_UNWRITTEN)


def test_a_tenant_alone_may_use_its_share_of_what_waits_for_a_slow_disk(admission):
    admission.max_size = 10 * MAX_UNWRITTEN
    admission.add("acme", MAX_UNWRITTEN // 2 - 10)
    admission.admit_tenant("acme", 10)
    error = refusal(admission, "acme", 11)
    assert str(error) == "tenant acme sends faster than the disk under the journal can write"
    assert (error.retry_after, error.reason, error.tenant) == (1.0, "tenant_journal_slow", "acme")
    admission.add("shop", 20)
    assert refusal(admission, "acme", 10).reason == "tenant_journal_slow"
    assert admission.unwritten == MAX_UNWRITTEN // 2 + 10
