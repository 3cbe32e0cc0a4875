from __future__ import annotations

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.codecs.otlp_json.scalars import _MAKERS, Wrong, double, integer
from otelwp_agent.codecs.otlp_json.schema import request
from otelwp_agent.model.signal import Signal


@given(st.integers(-(1 << 70), 1 << 70))
def test_integers_in_every_form(number):
    low, high = -(1 << 63), (1 << 63) - 1
    for form in (number, str(number)):
        if low <= number <= high:
            assert integer(form, low, high) == number
        else:
            with pytest.raises(Wrong):
                integer(form, low, high)


@given(st.floats())
def test_floats_in_every_form(number):
    assert double(number) == number or number != number  # noqa: PLR0124 - NaN
    if number == number and abs(number) != float("inf"):  # noqa: PLR0124 - NaN
        assert double(repr(number)) == number


@pytest.mark.parametrize(
    "value", ["", " 1", "1 ", "0x10", "1e", "--1", "infinity", "1,5", "1_000", "٣", [], {}, None, True]
)
def test_what_is_no_number(value):
    with pytest.raises(Wrong):
        double(value)
    with pytest.raises(Wrong):
        integer(value, -10, 10)


def test_every_scalar_type_of_otlp_has_a_maker():
    seen = {}

    def walk(descriptor):
        if descriptor.full_name not in seen:
            seen[descriptor.full_name] = {field.type for field in descriptor.fields}
            for field in descriptor.fields:
                if field.message_type is not None:
                    walk(field.message_type)

    for signal in Signal:
        walk(request(signal))
    apart = {FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_BYTES}
    assert set().union(*seen.values()) - apart == set(_MAKERS)
