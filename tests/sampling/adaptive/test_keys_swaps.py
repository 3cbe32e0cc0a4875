"""Keys that take the places of lighter ones."""

import math

from otelwp_agent.sampling.adaptive.keys import Keys


def swapping(**traffic):
    """Two keys of these rates, which are all that are told apart; no swap before second 1010."""
    some = Keys(2, 3600.0, 1.5, 1000.0)
    for name, rate in traffic.items():
        state = some.admit((name,), 1000.0)
        state.traffic, state.measured, state.seen = rate, 1e9, 0
    return some


def rates(some, name):
    state = some.states[name,]
    return state.traffic, state.weight_rate, state.adjusted_rate


def untold(some, **counts):
    for name, count in counts.items():
        for _ in range(count):
            assert some.admit((name,), 1005.0) is some.other


def test_a_key_takes_the_place_of_one_with_less_than_half_its_traffic():
    some = swapping(a=20.0, b=1.0)
    untold(some, c=30)
    some.measure(1009.9, 0.0001)
    assert set(some.states) == {("a",), ("b",)}, "places change each ten seconds"
    some.measure(1010.0, 0.0001)
    assert set(some.states) == {("a",), ("c",)}
    c = some.states["c",]
    assert (c.traffic, c.measured, c.seen, c.last_seen, c.slow_above) == (3.0, 10.0, 0, 1010.0, 1.5)


def test_a_key_with_twice_the_traffic_or_less_takes_no_place():
    some = swapping(a=20.0, b=1.0)
    for state in some.states.values():
        state.last_seen = 1010.0
    untold(some, c=20)
    some._swap(1010.0)
    assert set(some.states) == {("a",), ("b",)}
    untold(some, c=20)
    some._swap(1020.0)
    assert set(some.states) == {("a",), ("b",)}, "counting begins anew after each swap"


def test_the_heaviest_take_the_lightest_places_as_long_as_they_outweigh_them():
    some = swapping(a=20.0, b=1.0)
    untold(some, c=50, d=40)
    some._swap(1010.0)
    assert set(some.states) == {("a",), ("c",)}, "4 a second do not outweigh 20"


def test_free_places_are_filled_first_and_no_more_than_there_are():
    some = Keys(4, 3600.0, math.inf, 1000.0)
    for name in "abcd":
        state = some.admit((name,), 1000.0)
        state.traffic = 50.0
    untold(some, e=9, f=8, g=7)
    del some.states["a",], some.states["b",]
    some._swap(1010.0)
    assert set(some.states) == {("c",), ("d",), ("e",), ("f",)}


def test_one_free_place_is_filled():
    some = swapping(a=50.0, b=50.0)
    untold(some, c=1)
    del some.states["a",]
    some._swap(1010.0)
    assert set(some.states) == {("b",), ("c",)}


def test_what_a_key_costs_is_its_part_of_what_the_others_cost():
    some = swapping(a=20.0, b=1.0)
    some.other.traffic, some.other.weight_rate, some.other.adjusted_rate = 8.0, 16.0, 48.0
    untold(some, c=40)
    some._swap(1010.0)
    assert rates(some, "c") == (4.0, 8.0, 24.0)


def test_without_traffic_of_the_others_a_swapped_key_costs_nothing_yet():
    some = swapping(a=20.0, b=1.0)
    untold(some, c=40)
    some._swap(1010.0)
    assert rates(some, "c") == (4.0, 0.0, 0.0)


def test_of_keys_with_the_same_traffic_the_first_by_name_makes_way():
    some = swapping(b=1.0, a=1.0)
    untold(some, c=40)
    some._swap(1010.0)
    assert set(some.states) == {("b",), ("c",)}
