from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.model.wire import SMALL, prefixed, varint
from tests.kit.otlp import delimited
from tests.kit.otlp import varint as reference_varint


@given(st.integers(-(1 << 63), (1 << 64) - 1))
def test_varints(number):
    assert varint(number) == reference_varint(number)


@pytest.mark.parametrize("size", [0, 1, 127, 128, SMALL - 1, SMALL, 1 << 14])
def test_a_length_stands_before_what_has_one(size):
    assert prefixed(b"\x12", b"x" * size) == delimited(2, b"x" * size)
