from __future__ import annotations

import pytest
from hypothesis import given
from opentelemetry.proto.common.v1 import common_pb2

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import (
    as_string,
    decode,
    encode,
    format_float,
    to_any,
)
from tests.kit.attribute_values import raw_values, value_of


@given(raw_values)
def test_values_are_the_official_ones(raw):
    assert common_pb2.AnyValue.FromString(encode(raw)) == value_of(raw)


def test_integers_beyond_64_bits_are_refused():
    with pytest.raises(ValueError, match="64 bits"):
        to_any([2**63])


def test_a_value_that_does_not_parse_reads_as_empty():
    assert decode(b"\xff") == pb.AnyValue()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"), (-0.0, "-0"), (1.0, "1"), (0.1, "0.1"), (1e20, "100000000000000000000"), (1e21, "1e+21"),
        (1e-6, "0.000001"), (1e-7, "1e-7"), (-1.5e300, "-1.5e+300"), (123456789.125, "123456789.125"),
        (float("inf"), "+Inf"), (float("-inf"), "-Inf"), (float("nan"), "NaN"),
    ],
)  # fmt: skip
def test_floats_as_text(number, text):
    assert format_float(number) == text


def test_what_is_nested_too_deep_is_cut():
    value = b""
    for _ in range(500):
        pair = pb.KeyValue(key=b"k", value=value)
        value = pb.AnyValue(kvlist_value=pb.KeyValueList(values=[pair])).SerializeToString()
    assert as_string(decode(value)).count("k") == 64


def test_an_empty_value_as_text():
    assert as_string(pb.AnyValue()) == ""
    assert as_string(to_any([None, float("inf")])) == '[null,"+Inf"]'
