from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.codecs.otlp_json import memory
from otelwp_agent.codecs.otlp_json.memory import remembered


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(memory, "_strings", {})
    monkeypatch.setattr(memory, "_integers", {})
    monkeypatch.setattr(memory, "_entries", 0)


def read(attribute):
    """Return a remembered attribute, parsed."""
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    serialized = remembered(attribute)
    assert serialized[0] == len(serialized) - 1
    return KeyValue.FromString(serialized[1:])


def string(key, value):
    return {"key": key, "value": {"stringValue": value}}


def integer(key, value):
    return {"key": key, "value": {"intValue": value}}


@given(st.text(max_size=40), st.text(max_size=40))
def test_strings(key, value):
    for _ in range(2):
        if len(key.encode()) + len(value.encode()) > 100:
            assert remembered(string(key, value)) is None or read(string(key, value)).key == key
        else:
            attribute = read(string(key, value))
            assert (attribute.key, attribute.value.string_value) == (key, value)
            assert attribute.value.WhichOneof("value") == "string_value"


@given(st.text(max_size=20), st.integers(-(1 << 63), (1 << 63) - 1), st.booleans())
def test_integers(key, number, quoted):
    for _ in range(2):
        attribute = read(integer(key, str(number) if quoted else number))
        assert (attribute.key, attribute.value.int_value) == (key, number)
        assert attribute.value.WhichOneof("value") == "int_value"


@pytest.mark.parametrize("size", [120, 121, 122])
def test_up_to_a_length_of_one_byte(size):
    attribute = remembered(string("k", "v" * (size - 1)))
    if size <= 121:
        assert len(attribute) == size + 7
        assert read(string("k", "v" * (size - 1))).value.string_value == "v" * (size - 1)
    else:
        assert attribute is None
    assert remembered(integer("k" * 130, 1)) is None


def test_a_string_is_no_integer_and_truth_no_number():
    assert read(string("k", "1")).value.string_value == "1"
    assert read(integer("k", "1")).value.int_value == 1
    assert read(integer("k", 1)).value.int_value == 1
    assert read(integer("k", 0)).value.int_value == 0
    for truth in (True, False):
        assert remembered(integer("k", truth)) is None
    assert read(integer("k", 1.0)).value.int_value == 1
    assert remembered(string("k", 1)) is None


@pytest.mark.parametrize(
    "attribute",
    [
        None, 1, "value", [], {}, {"key": "k"}, {"value": {}}, {"key": "k", "value": "stringValue"},
        {"key": "k", "value": []}, {"key": "k", "value": ["stringValue"]}, {"key": "k", "value": None},
        string(1, "v"), string([], "v"), string("k", []), string("k", None), integer("k", []), integer(None, "1"),
        integer("k", "x"), integer("k", 1 << 63), {"key": "k", "value": {"boolValue": True}},
        {**string("k", "v"), "keyStrindex": 1}, {"key": "k", "value": {"stringValue": "v", "intValue": "1"}},
        {"Key": "k", "value": {"stringValue": "v"}},
    ],
)  # fmt: skip
def test_leaves_everything_else_to_the_tables(attribute):
    remembered(string("k", "v"))
    remembered(integer("k", "1"))
    assert remembered(attribute) is None


def test_forgets_everything_when_full(monkeypatch):
    monkeypatch.setattr(memory, "MAX_ENTRIES", 3)
    for number in range(10):
        assert read(string("k", f"v{number}")).value.string_value == f"v{number}"
        assert sum(len(values) for values in memory._strings.values()) <= 3
