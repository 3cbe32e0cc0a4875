"""Attribute values of every type, for tests with random data."""

from __future__ import annotations

from hypothesis import strategies as st
from opentelemetry.proto.common.v1 import common_pb2

raw_values = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.sampled_from(
        ["", "text", "17", "-3", "1.5", "1e3", " 4", "0x10", "1_000", "http://shop.example/a?b=c", "ключ"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=4,
)


def value_of(raw):
    """Return a value as the official message, written independently of the code under test."""
    value = common_pb2.AnyValue()
    if isinstance(raw, bool):
        value.bool_value = raw
    elif isinstance(raw, int):
        value.int_value = raw
    elif isinstance(raw, float):
        value.double_value = raw
    elif isinstance(raw, str):
        value.string_value = raw
    elif isinstance(raw, bytes):
        value.bytes_value = raw
    elif isinstance(raw, list):
        value.array_value.SetInParent()
        value.array_value.values.extend(value_of(each) for each in raw)
    elif isinstance(raw, dict):
        value.kvlist_value.SetInParent()
        for key, each in raw.items():
            value.kvlist_value.values.add(key=key).value.CopyFrom(value_of(each))
    return value
