import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.sampling.adaptive.histogram import GROWTH, LogHistogram, bucket_of, lower_edge

seconds = st.floats(1e-6, 1e6)


@given(seconds)
def test_a_bucket_holds_its_values(value):
    bucket = bucket_of(value)
    assert lower_edge(bucket) * (1 - 1e-9) <= value <= lower_edge(bucket + 1) * (1 + 1e-9)


@pytest.mark.parametrize(("value", "same"), [(0.0, 1e-6), (-5.0, 1e-6), (1e9, 1e6), (math.inf, 1e6), (math.nan, 1e6)])
def test_durations_out_of_range_count_as_the_nearest(value, same):
    assert bucket_of(value) == bucket_of(same)


@given(st.lists(seconds, min_size=1, max_size=80), st.floats(0.01, 0.99))
def test_at_most_the_rest_exceeds_a_quantile(values, q):
    histogram = LogHistogram()
    for value in values:
        histogram.add(bucket_of(value))
    limit = histogram.quantile(q)
    assert sum(value > limit * (1 + 1e-9) for value in values) <= (1 - q) * len(values) + 1e-6
    assert sum(value > limit / GROWTH * (1 - 1e-9) for value in values) >= (1 - q) * len(values) - 1e-6


@given(st.lists(seconds, max_size=30), st.lists(seconds, max_size=30))
def test_merged_is_as_if_one_had_counted_all(first, second):
    one, other, both = LogHistogram(), LogHistogram(), LogHistogram()
    for value in first:
        one.add(bucket_of(value))
        both.add(bucket_of(value))
    for value in second:
        other.add(bucket_of(value))
        both.add(bucket_of(value))
    one.merge(other)
    assert dict(one) == dict(both)
    assert one.total == both.total


def test_halved():
    histogram = LogHistogram()
    histogram.add(3, 5.0)
    histogram.halve()
    assert dict(histogram) == {3: 2.5}
    assert histogram.total == 2.5


def test_empty():
    assert LogHistogram().quantile(0.5) == 0.0
    assert dict(LogHistogram()) == {}


def test_dumped_and_loaded():
    histogram = LogHistogram()
    for bucket in (5, -3, 9, 9):
        histogram.add(bucket)
    loaded = LogHistogram.load(histogram.dump())
    assert dict(loaded) == dict(histogram) == {-3: 1, 5: 1, 9: 2}
    assert loaded.total == 4
