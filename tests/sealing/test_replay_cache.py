import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.sealing.envelope import SealedHeader
from otelwp_agent.sealing.errors import SealedError
from otelwp_agent.sealing.freshness import Freshness
from otelwp_agent.sealing.replay_cache import MessageState, ReplayCache

NOW = 1_700_000_000.0


def message(number, time=NOW):
    return SealedHeader("acme", int(time * 1000), message_id=number.to_bytes(16, "big"))


def test_a_message_is_processed_once():
    cache = ReplayCache()
    assert cache.begin("acme", message(1), NOW) is MessageState.NEW
    assert cache.begin("acme", message(1), NOW) is MessageState.PENDING
    cache.accept("acme", message(1))
    assert cache.begin("acme", message(1), NOW + 1) is MessageState.ACCEPTED
    assert cache.begin("acme", message(2), NOW + 1) is MessageState.NEW
    assert cache.begin("globex", message(1), NOW + 1) is MessageState.NEW


def test_a_refused_message_may_be_sent_again():
    cache = ReplayCache()
    cache.begin("acme", message(1), NOW)
    cache.release("acme", message(1))
    assert len(cache) == 0
    assert cache.begin("acme", message(1), NOW) is MessageState.NEW


def test_ids_are_forgotten_when_their_time_has_passed():
    cache = ReplayCache(keep=600)
    cache.begin("acme", message(1), NOW)
    cache.accept("acme", message(1))
    cache.expire(NOW + 599)
    assert len(cache) == 1
    cache.expire(NOW + 600)
    assert len(cache) == 0


def test_an_id_that_was_sealed_again_is_kept_as_long_as_the_newer_envelope_is_fresh():
    cache = ReplayCache(keep=600)
    cache.begin("acme", message(1), NOW)
    cache.accept("acme", message(1))
    assert cache.begin("acme", message(1, NOW + 500), NOW + 500) is MessageState.ACCEPTED
    assert cache.begin("acme", message(1, NOW + 500), NOW + 800) is MessageState.ACCEPTED


def test_at_its_capacity_a_tenant_is_refused_what_may_be_a_replay():
    cache = ReplayCache(per_tenant=2)
    for number in (1, 2, 3):
        assert cache.begin("acme", message(number, NOW + number), NOW + number) is MessageState.NEW
        cache.accept("acme", message(number))
    assert len(cache) == 2
    with pytest.raises(SealedError) as caught:
        cache.begin("acme", message(1, NOW + 1), NOW + 4)
    assert caught.value.reason == "stale"
    assert cache.begin("acme", message(4, NOW + 1.001), NOW + 4) is MessageState.NEW
    assert cache.begin("globex", message(1, NOW + 1), NOW + 4) is MessageState.NEW


def test_the_capacity_for_all_tenants_takes_from_the_large_ones():
    cache = ReplayCache(per_tenant=50, total=60)
    for number in range(50):
        cache.begin("flood", message(number, NOW + number / 100), NOW + 1)
    for number in range(20):
        cache.begin(f"small-{number}", message(1), NOW + 1)
        cache.accept(f"small-{number}", message(1))
    assert len(cache) == 60
    assert all(cache.begin(f"small-{number}", message(1), NOW + 1) is MessageState.ACCEPTED for number in range(20))


@given(
    st.lists(
        st.tuples(st.sampled_from(["acme", "globex", "initech"]), st.integers(0, 12), st.integers(-400, 400)),
        max_size=60,
    )
)
def test_no_envelope_is_accepted_twice_whatever_the_load(sent):
    cache, fresh = ReplayCache(per_tenant=4, total=7), Freshness()
    accepted = []
    for step, (tenant, number, offset) in enumerate(sent):
        now = NOW + 30 * step
        header = message(number, NOW + offset + 30 * (number % 5))
        try:
            fresh.check(header, now)
            state = cache.begin(tenant, header, now)
        except SealedError:
            continue
        if state is MessageState.NEW:
            accepted.append((tenant, header.message_id, header.time))
            cache.accept(tenant, header)
        assert len(cache) <= 7
    assert len(accepted) == len(set(accepted))


def test_what_is_unknown_is_ignored():
    cache = ReplayCache()
    cache.accept("acme", message(1))
    cache.release("acme", message(1))
    assert len(cache) == 0
