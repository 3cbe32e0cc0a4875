from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.sealing.envelope import SealedHeader, parse, seal, unseal
from otelwp_agent.sealing.key_ring import KeyRing
from otelwp_agent.sealing.rotation import key_set_of, new_key, rotate
from otelwp_agent.sealing.suites import SealingSuite

NOW = 1_700_000_000.0
DAY = 86_400.0


def test_ids_begin_with_the_day_of_the_first_use():
    first, second = (new_key(SealingSuite.X25519, NOW) for _ in range(2))
    assert first.key_id.startswith("20231114-")
    assert first.key_id != second.key_id
    assert first.private != second.private


def test_the_old_key_ends_after_the_overlap_and_ended_keys_are_removed():
    first = new_key(SealingSuite.X25519, NOW)
    second = new_key(SealingSuite.X25519, NOW + DAY)
    keys = rotate([first], second, NOW + DAY - 3600, 7 * DAY)
    assert [(key.key_id, key.not_after) for key in keys] == [(first.key_id, NOW + 8 * DAY), (second.key_id, None)]
    third = new_key(SealingSuite.X25519, NOW + 30 * DAY)
    assert [key.key_id for key in rotate(keys, third, NOW + 30 * DAY)] == [second.key_id, third.key_id]


def test_an_end_is_never_moved_to_a_later_time():
    first = new_key(SealingSuite.X25519, NOW, NOW + DAY)
    keys = rotate([first], new_key(SealingSuite.X25519, NOW), NOW, 7 * DAY)
    assert keys[0].not_after == NOW + DAY


def test_keys_of_other_suites_end_only_if_that_is_wanted():
    curve, hybrid = new_key(SealingSuite.X25519, NOW), new_key(SealingSuite.MLKEM768_X25519, NOW)
    assert rotate([curve], hybrid, NOW)[0].not_after is None
    assert rotate([curve], hybrid, NOW, DAY, all_suites=True)[0].not_after == NOW + DAY


@given(st.lists(st.tuples(st.floats(0, 30 * DAY), st.floats(0, DAY), st.floats(3600, 7 * DAY)), max_size=6))
def test_what_any_published_set_seals_opens_for_the_overlap(rotations):
    """Senders may have any of the sets up to the newest one; the recipient has the newest keys."""
    now = NOW
    keys = [new_key(SealingSuite.X25519, now)]
    published = [key_set_of(1, keys, now)]
    for step, lead, overlap in rotations:
        now += step
        previous = key_set_of(0, keys, now)
        keys = rotate(keys, new_key(SealingSuite.X25519, now + lead), now, overlap)
        published = [previous, key_set_of(len(published) + 1, keys, now)]
        ring = KeyRing(keys)
        for moment in (now, now + lead, now + lead + 1):
            for key_set in published:
                recipient = key_set.recipient(moment)
                if recipient is not None:
                    sealed = seal(recipient, SealedHeader("acme", int(moment * 1000)), b"spans")
                    assert unseal(parse(sealed), ring, moment + 299) == b"spans"
        assert published[-1].recipient(now + lead) is not None
