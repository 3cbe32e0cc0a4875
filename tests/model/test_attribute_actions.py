from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attribute_actions import Action, compile_actions, from_context, to_bytes
from otelwp_agent.model.attributes import decode
from otelwp_agent.model.batch import Origin
from tests.kit.attribute_values import raw_values, value_of

KINDS = ("insert", "update", "upsert", "delete", "hash", "extract", "convert")


def resource_of(attributes):
    resource = Resource(dropped_attributes_count=7)
    for key, raw in attributes.items():
        resource.attributes.add(key=key).value.CopyFrom(value_of(raw))
    return resource


def act(action, attributes, origin=None):
    """Do one action to attributes; return whether it said that it changed them, and what they are then."""
    before = resource_of(attributes)
    projected = pb.Resource.FromString(before.SerializeToString())
    changed = compile_actions([action])(projected.attributes, origin or Origin())
    after = Resource.FromString(projected.SerializeToString())
    assert after.dropped_attributes_count == 7
    if not changed:
        assert after == before
    return changed, after


def expect(action, attributes, expected, origin=None):
    changed, after = act(action, attributes, origin)
    assert after == resource_of(expected)
    assert changed == (resource_of(attributes) != resource_of(expected))


@pytest.mark.parametrize("kind", ["insert", "update", "upsert"])
def test_setting(kind):
    absent, present = {"a": 1}, {"a": 1, "k": "old", "z": 2}
    expect(Action(kind, "k", value="new"), absent, absent if kind == "update" else {**absent, "k": "new"})
    expect(Action(kind, "k", value="new"), present, present if kind == "insert" else {**present, "k": "new"})
    expect(Action(kind, "k", value="old"), present, present)
    expect(Action(kind, "k", from_attribute="a"), present, present if kind == "insert" else {**present, "k": 1})
    expect(Action(kind, "k", from_attribute="gone"), present, present)
    expect(
        Action(kind, "k", from_attribute="gone", default=False),
        present,
        present if kind == "insert" else {**present, "k": False},
    )


@given(raw_values)
def test_types_stay(raw):
    expect(Action("upsert", "k", value=raw), {"a": 1}, {"a": 1, "k": raw})


def test_from_the_sender():
    sender = Origin(headers={"x-site": "shop"})
    for name in ("metadata.X-Site", "metadata.x-site", "x-site"):
        expect(Action("insert", "k", from_context=name), {}, {"k": "shop"}, sender)
    for name in ("metadata.other", "auth.subject", "client.address"):
        expect(Action("insert", "k", from_context=name), {}, {}, sender)
        expect(Action("insert", "k", from_context=name, default="none"), {}, {"k": "none"}, sender)
    assert from_context(Origin(), "metadata.x-site") is None


def test_deleting():
    attributes = {"a": 1, "ab": 2, "b": 3}
    expect(Action("delete", "a"), attributes, {"ab": 2, "b": 3})
    expect(Action("delete", "c"), attributes, attributes)
    expect(Action("delete", pattern="^a"), attributes, {"b": 3})
    expect(Action("delete", pattern="b"), attributes, {"a": 1})
    expect(Action("delete", "b", pattern="^a$"), attributes, {"ab": 2})


def test_deleting_removes_every_one_of_a_key():
    message = pb.Resource()
    for _ in range(3):
        message.attributes.add(key=b"twice", value=b"")
    assert compile_actions([Action("delete", "twice")])(message.attributes, Origin())
    assert not message.attributes


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        ("jane@example.com", b"jane@example.com"),
        (True, b"\x01"),
        (False, b"\x00"),
        (258, struct.pack("<q", 258)),
        (-1, b"\xff" * 8),
        (1.5, struct.pack("<d", 1.5)),
        (b"\x00\xff", b"\x00\xff"),
        (["a", 1], b'["a",1]'),
    ],
)
def test_hashing(raw, data):
    expect(Action("hash", "k"), {"k": raw, "o": 1}, {"k": hashlib.sha256(data).hexdigest(), "o": 1})
    assert to_bytes(decode(value_of(raw).SerializeToString())) == data


def test_hashing_by_pattern_and_of_nothing():
    digest = hashlib.sha256(b"x").hexdigest()
    expect(
        Action("hash", pattern="mail$"),
        {"mail": "x", "e.mail": "x", "o": "x"},
        {"mail": digest, "e.mail": digest, "o": "x"},
    )
    assert act(Action("hash", "k"), {"k": ""})[1] == resource_of({"k": ""})
    expect(Action("hash", "gone"), {"k": "x"}, {"k": "x"})


def test_extracting():
    pattern = r"^(?P<http_protocol>.*):\/\/((?P<http_domain>.*))\/(?P<http_path>.*)(?P<query>\?.*)?$"
    before = {"http_domain": "old", "http.url": "http://shop.example/path"}
    expect(
        Action("extract", "http.url", pattern=pattern),
        before,
        {**before, "http_domain": "shop.example", "http_protocol": "http", "http_path": "path", "query": ""},
    )
    expect(Action("extract", "http.url", pattern="(?P<a>ftp)"), before, before)
    expect(Action("extract", "gone", pattern="(?P<a>.*)"), before, before)
    expect(Action("extract", "n", pattern="(?P<a>.*)"), {"n": 5}, {"n": 5})


@pytest.mark.parametrize(
    ("to", "raw", "expected"),
    [
        ("int", "200", 200),
        ("int", "+7", 7),
        ("int", "-9223372036854775808", -(2**63)),
        ("int", "9223372036854775808", None),
        ("int", "9" * 5000, None),
        ("int", "1_0", None),
        ("int", " 1", None),
        ("int", "1.0", None),
        ("int", "", None),
        ("int", 1.99, 1),
        ("int", -1.99, -1),
        ("int", 1e300, None),
        ("int", float("inf"), None),
        ("int", True, 1),
        ("int", 5, None),
        ("int", ["1"], None),
        ("double", "1.5", 1.5),
        ("double", "-.5e3", -500.0),
        ("double", "1_0.0", None),
        ("double", "x", None),
        ("double", 3, 3.0),
        ("double", False, 0.0),
        ("double", 2.5, None),
        ("double", b"1", None),
        ("string", 200, "200"),
        ("string", True, "true"),
        ("string", 1.0, "1"),
        ("string", b"\x00\x01", "AAE="),
        ("string", ["a", 1, {"k": 1.5}], '["a",1,{"k":1.5}]'),
        ("string", "same", None),
    ],
)
def test_converting(to, raw, expected):
    """An expectation of `None` is: stays as it is."""
    expect(Action("convert", "k", converted_type=to), {"k": raw}, {"k": raw if expected is None else expected})
    expect(Action("convert", "gone", converted_type=to), {"k": raw}, {"k": raw})


# --- any actions to any attributes, beside an implementation over the official messages ---
def reference(actions, resource):  # noqa: C901 - a branch for each action
    """Do what the documentation says, with dictionaries."""
    pairs = {pair.key: pair.value for pair in resource.attributes}
    for action in actions:
        if action.kind in ("insert", "update", "upsert"):
            value = pairs.get(action.from_attribute) if action.from_attribute else value_of(action.value)
            there = action.key in pairs
            if value is not None and (action.kind == "upsert" or there == (action.kind == "update")):
                pairs[action.key] = value
        elif action.kind == "delete":
            pairs.pop(action.key, None)
        elif action.key not in pairs:
            continue
        elif action.kind == "hash":
            data = to_bytes(decode(pairs[action.key].SerializeToString()))
            pairs[action.key] = value_of(hashlib.sha256(data).hexdigest() if data else "")
        elif action.kind == "convert" and pairs[action.key].HasField("bool_value"):
            pairs[action.key] = value_of(int(pairs[action.key].bool_value))
        elif action.kind == "convert" and pairs[action.key].HasField("double_value"):
            number = pairs[action.key].double_value
            if abs(number) < 2**63:
                pairs[action.key] = value_of(int(number))
        elif action.kind == "convert" and pairs[action.key].HasField("string_value"):
            text = pairs[action.key].string_value
            if text in ("17", "-3"):
                pairs[action.key] = value_of(int(text))
    return pairs


keys = st.sampled_from(["a", "b", "c"])


actions = st.lists(
    st.builds(Action, st.sampled_from(["delete", "hash"]), keys)
    | st.builds(Action, st.just("convert"), keys, converted_type=st.just("int"))
    | st.builds(Action, st.sampled_from(["insert", "update", "upsert"]), keys, value=raw_values)
    | st.builds(Action, st.sampled_from(["insert", "update", "upsert"]), keys, from_attribute=keys),
    min_size=1,
    max_size=5,
)


@given(actions, st.dictionaries(st.sampled_from(["a", "b", "d"]), raw_values, max_size=3))
def test_any_actions_do_what_they_say(plan, attributes):
    resource = resource_of(attributes)
    projected = pb.Resource.FromString(resource.SerializeToString())
    changed = compile_actions(plan)(projected.attributes, Origin())
    after = Resource.FromString(projected.SerializeToString())
    assert {pair.key: pair.value for pair in after.attributes} == reference(plan, resource)
    if not changed:
        assert after == resource
