from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.sampling.consistent import (
    ALWAYS,
    MIN_PROBABILITY,
    NEVER,
    TraceState,
    adjusted_count,
    format_randomness,
    format_threshold,
    hashed_randomness,
    hashed_threshold,
    lowered,
    parse_randomness,
    parse_threshold,
    probability_of,
    randomness_of,
    threshold_near,
    threshold_of,
)

thresholds = st.integers(0, NEVER - 1)
probabilities = st.floats(MIN_PROBABILITY, 1.0)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-*/", min_size=1, max_size=8).filter(lambda name: name != "ot")
values = st.text("abcdefghijklmnopqrstuvwxyz0123456789:;.", min_size=1, max_size=12)
others = st.lists(st.tuples(names, values).map("=".join), max_size=4)


@pytest.mark.parametrize(
    ("probability", "threshold"),
    [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.1, "e6666666666666"), (0.01, "fd70a3d70a3d71"), (1 / 3, "aaaaaaaaaaaaac")],
)
def test_thresholds_are_those_of_the_specification(probability, threshold):
    assert format_threshold(threshold_of(probability)) == threshold


@pytest.mark.parametrize(
    ("probability", "precision", "threshold"),
    [
        (1 / 3, 4, "aaab"),
        (1 / 3, 1, "b"),
        (0.1, 4, "e666"),
        (0.01, 4, "fd70a"),
        (0.999, 4, "004189"),
        (0.0001, 3, "fff972"),
    ],
)
def test_precision_counts_digits_after_leading_zeros_and_fs(probability, precision, threshold):
    assert format_threshold(threshold_of(probability, precision)) == threshold


def test_the_ends_of_the_scale():
    assert threshold_of(0) == threshold_of(MIN_PROBABILITY / 2) == NEVER
    assert threshold_of(1) == threshold_of(7.5) == ALWAYS
    assert threshold_of(MIN_PROBABILITY) == NEVER - 1
    assert adjusted_count(NEVER) == 0
    assert adjusted_count(ALWAYS) == 1
    assert adjusted_count(threshold_of(0.25)) == 4


@given(probabilities, st.integers(1, 14))
def test_a_threshold_stays_close_to_its_probability(probability, precision):
    threshold = threshold_of(probability, precision)
    assert 0 <= threshold < NEVER
    # One digit of precision leaves an error of half a sixteenth of a quantity of at least a sixteenth.
    assert probability_of(threshold) == pytest.approx(probability, rel=0.51 * 16 ** (1 - precision) + 1e-9, abs=2**-56)


@given(probabilities, probabilities, st.integers(1, 14))
def test_more_probable_never_keeps_less(one, other, precision):
    low, high = sorted([one, other])
    assert threshold_of(high, precision) <= threshold_of(low, precision)


@given(thresholds)
def test_thresholds_survive_their_text(threshold):
    text = format_threshold(threshold)
    assert parse_threshold(text) == threshold
    assert text == "0" or not text.endswith("0")


@given(thresholds)
def test_randomness_survives_its_text(randomness):
    assert parse_randomness(format_randomness(randomness)) == randomness


@pytest.mark.parametrize("text", ["", "g", "8 ", "0x8", "F", "123456789012345", "-1", "٣"])
def test_invalid_thresholds(text):
    assert parse_threshold(text) is None
    assert parse_randomness(text) is None


def test_randomness_is_the_low_seven_bytes_of_a_valid_id():
    assert randomness_of(bytes(range(16))) == int.from_bytes(bytes(range(9, 16)), "big")
    assert randomness_of(b"\x01" + bytes(15)) == 0
    assert randomness_of(bytes(16)) is None
    assert randomness_of(b"") is None
    assert randomness_of(bytes(range(1, 9))) is None


def test_the_hash_is_fnv_1a_after_the_seed():
    # 32-bit FNV-1a of four zero bytes and "foobar", worked out with the reference algorithm.
    value = 0x811C9DC5
    for byte in b"\x00\x00\x00\x00foobar":
        value = (value ^ byte) * 0x01000193 % 2**32
    randomness = hashed_randomness(b"foobar", 0)
    assert randomness & 0x3FFF == value & 0x3FFF
    assert randomness >> 42 == 0x3FFF - (value & 0x3FFF)
    assert hashed_randomness(b"foobar", 1) != randomness
    assert 0 <= randomness < NEVER


@given(st.binary(max_size=20), st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_hashing_keeps_what_the_collector_keeps(data, seed, percentage):
    value = 0x811C9DC5
    for byte in seed.to_bytes(4, "little") + data:
        value = (value ^ byte) * 0x01000193 % 2**32
    accepted = (NEVER - hashed_threshold(percentage)) >> 42
    assert abs(accepted - percentage * 163.84) <= 1
    assert (hashed_randomness(data, seed) >= hashed_threshold(percentage)) == (value % 0x4000 < accepted)


def test_a_trace_state_is_read():
    state = TraceState.parse("congo=t61rcWkgMzE,ot=rv:9b8233f7e3a151;th:8;x:y,rojo=1")
    assert (state.threshold, state.randomness, state.valid) == (1 << 55, 0x9B8233F7E3A151, True)
    assert TraceState.parse("") == TraceState("")
    assert TraceState.parse("foot=th:8").threshold is None


@pytest.mark.parametrize("text", ["ot=th:", "ot=th:xyz", "ot=rv:8", "ot=th:8;rv:", "a=b,ot=th:8 8"])
def test_an_invalid_trace_state_is_marked(text):
    assert not TraceState.parse(text).valid


@given(others, st.none() | thresholds, st.none() | thresholds, st.none() | thresholds)
def test_setting_a_threshold_erases_nothing_else(entries, arrived, randomness, threshold):
    own = [f"th:{format_threshold(arrived)}"] if arrived is not None else []
    own += [f"rv:{format_randomness(randomness)}"] if randomness is not None else []
    own.append("x:keep me")
    middle = len(entries) // 2
    text = ",".join([*entries[:middle], "ot=" + ";".join(own), *entries[middle:]])
    changed = TraceState.parse(text).with_threshold(threshold)
    again = TraceState.parse(changed.text)
    assert (again.threshold, again.randomness) == (threshold, randomness) == (changed.threshold, changed.randomness)
    first, *rest = changed.text.split(",")
    assert first.startswith("ot=")
    assert first.endswith("x:keep me")
    assert rest == entries


def test_erasing_leaves_no_empty_entry():
    assert TraceState.parse("ot=th:8,a=b").with_threshold(None).text == "a=b"
    assert TraceState.parse("ot=th:8").with_threshold(None).text == ""


def test_randomness_is_written_once():
    state = TraceState.parse("ot=rv:00000000000001;th:4").with_threshold(1 << 55, 2)
    assert state.text == "ot=th:8;rv:00000000000002"


@given(st.floats(1e-9, 1.0))
def test_a_threshold_is_near_and_short(probability):
    threshold = threshold_near(probability)
    assert probability_of(threshold) == pytest.approx(probability, rel=1 / 8000)
    assert len(format_threshold(threshold)) <= (6 if probability > 1 / 4096 else 11)


def test_the_ends():
    assert threshold_near(1.0) == threshold_near(7.0) == ALWAYS
    assert threshold_near(0.0) == threshold_near(-1.0) == NEVER
    assert threshold_near(1e-30) < NEVER


@given(st.floats(0, 1), st.floats(0, 1))
def test_lowering_is_the_probability_times_the_factor(probability, factor):
    threshold = threshold_near(probability)
    assert lowered(threshold, factor) == threshold_near(probability_of(threshold) * factor)
    assert lowered(threshold, factor) >= threshold
