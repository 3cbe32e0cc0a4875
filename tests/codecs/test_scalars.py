import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.codecs import scalars

anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)


@pytest.mark.parametrize(
    ("value", "size", "raw", "kind"),
    [
        ("00000000000000aa", 8, "00000000000000aa", ""),
        ("00000000000000aa", 16, "000000000000000000000000000000aa", ""),
        ("00000000000000AA", 8, "00000000000000aa", ""),
        ("aa", 8, "00000000000000aa", "id_padded"),
        ("11000000000000aabb", 8, "000000000000aabb", "id_cut"),
        ("0xaa", 8, "00000000000000aa", "id_spelling"),
        (170, 8, "00000000000000aa", "id_number"),
        ("0000000000000000", 8, "", ""),
        ("", 8, "", ""),
        (None, 8, "", ""),
        (-1, 8, "", ""),
    ],
)
def test_identifiers(value, size, raw, kind):
    assert scalars.identifier(value, size) == (bytes.fromhex(raw), kind)


def test_what_is_no_hex_is_hashed_the_same_each_time():
    raw, kind = scalars.identifier("page-7", 8)
    assert (len(raw), kind) == (8, "id_hashed")
    assert scalars.identifier("page-7", 8)[0] == raw != scalars.identifier("page-8", 8)[0]


@pytest.mark.parametrize(
    ("value", "nanoseconds", "unit", "kind"),
    [
        (1795186135546316, 1795186135546316000, 1000, ""),
        (1795186135546, 1795186135546000000, 10**6, "time_in_ms"),
        (1795186135, 1795186135000000000, 10**9, "time_in_s"),
        (1795186135546316001, 1795186135546316001, 1, "time_in_ns"),
        (1795186135.5, 1795186135500000000, 10**9, "time_in_s"),
        (1795186135546316.0, 1795186135546316000, 1000, "time_float"),
        ("1795186135546316", 1795186135546316000, 1000, "time_text"),
        ("2026-11-20T14:48:55Z", 1795186135000000000, 1000, "time_text"),
        ("soon", 0, 1000, "time_missing"),
        (0, 0, 1000, "time_missing"),
        (None, 0, 1000, "time_missing"),
    ],
)
def test_times(value, nanoseconds, unit, kind):
    assert scalars.time(value) == (nanoseconds, unit, kind)


@pytest.mark.parametrize(
    ("value", "unit", "nanoseconds", "kind"),
    [
        (7, 1000, 7000, ""),
        (0.25, 1000, 250, ""),
        ("7", 1000, 7000, "time_text"),
        (-7, 1000, 0, "negative_duration"),
        (None, 1000, 0, "duration_missing"),
        (10**17, 1000, 0, "duration_out_of_range"),
    ],
)
def test_durations(value, unit, nanoseconds, kind):
    assert scalars.duration(value, unit) == (nanoseconds, kind)


@given(anything, st.sampled_from([1, 1000, 10**6, 10**9]))
def test_whatever_comes_stays_within_bounds(value, unit):
    raw, _ = scalars.identifier(value, 16)
    assert len(raw) in {0, 16}
    assert 0 <= scalars.time(value)[0] <= scalars.MAX_TIME
    assert 0 <= scalars.duration(value, unit)[0] <= scalars.MAX_TIME
