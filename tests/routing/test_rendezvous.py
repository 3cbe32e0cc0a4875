"""The choice depends on members and key alone, moves as few keys as possible, and respects the bound of loads."""

from __future__ import annotations

from collections import Counter
from math import ceil, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.routing.rendezvous import LOAD_BOUND, SLOTS, Rendezvous

MEMBERS = st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=9, unique=True)
KEYS = [number.to_bytes(16) for number in range(4000)]


def six_sigma(share, keys):
    """Return how far a share of the keys may be from `share`: by the choice of the keys, and by that of the slots."""
    return 6 * sqrt(share * (1 - share)) * (1 / sqrt(keys) + 1 / sqrt(SLOTS))


@settings(max_examples=25, deadline=None)
@given(MEMBERS)
def test_an_added_member_takes_its_part_and_no_other_key_moves(members):
    fewer, more = Rendezvous(members[:-1]), Rendezvous(members)
    moved = [key for key in KEYS if fewer.choose(key) != more.choose(key)]
    assert {more.choose(key) for key in moved} <= {members[-1]}
    share = 1 / len(members)
    assert abs(len(moved) / len(KEYS) - share) < six_sigma(share, len(KEYS))


@settings(max_examples=25, deadline=None)
@given(MEMBERS, st.randoms())
def test_order_and_duplicates_do_not_matter(members, random):
    shuffled = random.sample(members, len(members))
    one, two = Rendezvous(members), Rendezvous([*shuffled, shuffled[0]])
    assert [one.choose(key) for key in KEYS[:200]] == [two.choose(key) for key in KEYS[:200]]


@settings(max_examples=25, deadline=None)
@given(MEMBERS, st.binary(max_size=40))
def test_the_ranking_is_what_is_chosen_when_members_are_left_out(members, key):
    ranking = Rendezvous(members).ranking(key)
    assert sorted(ranking) == sorted(members)
    for start in range(len(ranking)):
        assert Rendezvous(ranking[start:]).choose(key) == ranking[start]


def test_members_get_equal_parts():
    members = [f"10.0.0.{number}:4317" for number in range(16)]
    rendezvous = Rendezvous(members)
    keys = [b"service %d" % number for number in range(32_000)]
    got = Counter(rendezvous.choose(key) for key in keys)
    for member in members:
        assert abs(got[member] / len(keys) - 1 / 16) < six_sigma(1 / 16, len(keys))


@settings(max_examples=100, deadline=None)
@given(MEMBERS, st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=100))
def test_no_member_exceeds_the_bound_of_loads(members, keys):
    rendezvous, loads = Rendezvous(members), Counter()
    for number, key in enumerate(keys, 1):
        loads[rendezvous.choose(key, loads)] += 1
        assert max(loads.values()) <= ceil(LOAD_BOUND * number / len(members))
    assert sum(loads.values()) == len(keys)


def test_a_load_below_the_bound_changes_nothing():
    rendezvous = Rendezvous(["a", "b", "c"])
    for key in KEYS[:100]:
        assert rendezvous.choose(key, {"a": 10, "b": 10, "c": 10}) == rendezvous.choose(key)


def test_the_choice_is_the_same_in_every_version():
    """Agents of different versions and machines must agree: this choice never changes."""
    rendezvous = Rendezvous(["a:4317", "b:4317", "c:4317"])
    assert "".join(rendezvous.choose(key)[0] for key in KEYS[:24]) == "acbacbcaabcbbccacbccbbcb"


def test_no_members_are_refused():
    with pytest.raises(ValueError, match="at least one member"):
        Rendezvous([])
