"""The editor in C changes only the bytes of attributes. tests/processors/test_attributes.py compares it with Python."""

from __future__ import annotations

import gc
import hashlib
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.model import attribute_edits, native
from otelwp_agent.model.attribute_actions import Action
from otelwp_agent.model.attribute_edits import Answers, ItemCondition, Where, edit_items, edit_resources
from otelwp_agent.model.attributes import encode
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal
from tests.kit.otlp import delimited, tag

ORIGIN = Origin()
needs_c = pytest.mark.skipif(native.extension is None, reason="the extension module is not available")


def pair(key, value, *more):
    return delimited(1, key) + b"".join(more) + delimited(2, encode(value))


def span(*attributes):
    """Return a span with unknown fields around its attributes."""
    fields = [
        tag(99, 0) + b"\x05",
        *[delimited(9, each) for each in attributes],
        delimited(11, delimited(3, b"\x0a\0")),
    ]
    return b"".join([fields[-1], *fields])


def request(*spans):
    scope = delimited(3, b"schema") + b"".join(delimited(2, each) for each in spans) + delimited(1, b"\x0a\x01s")
    return delimited(1, delimited(2, scope) + tag(99, 5) + b"four" + delimited(1, b"\x0a\x00"))


KEPT = pair(b"kept", 1, tag(7, 0) + b"\x01")
LONG = "x" * 20_000


@needs_c
@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        (Action("delete", "k"), [KEPT, pair(b"k", 1), KEPT, pair(b"k", LONG)], [KEPT, KEPT]),
        (Action("update", "k", LONG), [KEPT, pair(b"k", 1), KEPT], [KEPT, pair(b"k", LONG), KEPT]),
        (Action("update", "k", ""), [pair(b"k", LONG, tag(5, 0) + b"\x01")], [pair(b"k", "", tag(5, 0) + b"\x01")]),
        (Action("update", "k", 1), [delimited(1, b"k")], [pair(b"k", 1)]),
        (Action("insert", "n", LONG), [KEPT], [KEPT]),
        (Action("hash", "k"), [pair(b"k", "ab"), KEPT], [pair(b"k", hashlib.sha256(b"ab").hexdigest()), KEPT]),
    ],
)  # fmt: skip
def test_only_the_bytes_of_attributes_change(action, before, after):
    edited = edit_items([action], Signal.TRACES).edit(request(span(*before), span()), ORIGIN)
    if action.kind == "insert":
        new = delimited(9, pair(b"n", LONG))
        assert edited == request(span(*after) + new, span() + new)
    else:
        assert edited == request(span(*after), span())


@needs_c
def test_lengths_that_grow_change_the_lengths_around_them():
    for size in (0, 1, 100, 127, 128, 16_383, 16_384, 2_097_152):
        body = request(span(pair(b"k", "")))
        edited = edit_items([Action("update", "k", "x" * size)], Signal.TRACES).edit(body, ORIGIN)
        assert edited == request(span(pair(b"k", "x" * size)))


@needs_c
def test_a_resource_is_added_if_there_is_none():
    editor = edit_resources([Action("insert", "k", 1), Action("delete", "gone")])
    assert editor.edit(delimited(1, b""), ORIGIN) == delimited(1, delimited(1, delimited(1, pair(b"k", 1))))
    body = delimited(1, delimited(2, delimited(2, b"any")) + delimited(1, delimited(1, KEPT)))
    added = delimited(1, KEPT) + delimited(1, pair(b"k", 1))
    assert editor.edit(body, ORIGIN) == delimited(1, delimited(2, delimited(2, b"any")) + delimited(1, added))


@needs_c
def test_the_same_object_is_returned_if_nothing_changes():
    body = request(span(KEPT, pair(b"k", 1)))
    for action in (Action("delete", "none"), Action("update", "k", 1), Action("insert", "k", 2), Action("hash", "x")):
        assert edit_items([action], Signal.TRACES).edit(body, ORIGIN) is body
    exclude = ItemCondition(False, Where.ATTRIBUTE, 0, b"k", lambda _value: False)  # noqa: FBT003 - a tuple
    assert edit_items([Action("delete", "k")], Signal.TRACES, [exclude]).edit(body, ORIGIN) is body


TWICE = delimited(2, encode(1)) + delimited(2, encode(2))


@needs_c
@pytest.mark.parametrize(
    "body",
    [
        request(span(delimited(1, b"k") + TWICE)),
        request(span(delimited(1, b"k") * 2)),
        request(tag(99, 3) + tag(99, 4)),
        request(b"\xca\x00\x02\x0a\x00"),
        request(b"\x4a\x05abc"),
        request(b"\x4a"),
        request(span(b"\x0a\x05k")),
        delimited(1, delimited(1, b"") * 2 + delimited(2, delimited(2, span()))),
        delimited(1, b"\x00\x00"),
        b"\xff",
        b"\x0a\x80\x80\x80\x80\x80\x00",
    ],
)
def test_unusual_requests_are_left_to_python(body):
    enter = (lambda _resource: 1, lambda _scope: 2)
    for condition in ([], [ItemCondition(True, Where.BYTES_FIELD, 5, b"", bool)]):  # noqa: FBT003 - a tuple
        editor = edit_items([Action("delete", "k")], Signal.TRACES, condition)
        assert editor.edit(body, ORIGIN, *enter) is None


@needs_c
def test_what_ends_too_early_is_never_edited_beyond_its_end():
    body = request(span(KEPT, pair(b"k", "value"), pair(b"other", 1)))
    editor = edit_items([Action("update", "k", 1), Action("hash", pattern="^o")], Signal.TRACES)
    assert len(editor.edit(body, ORIGIN)) > len(body)
    assert [editor.edit(body[:end], ORIGIN) for end in range(1, len(body))] == [None] * (len(body) - 1)


@needs_c
@settings(max_examples=50)
@given(st.lists(st.binary(max_size=12), max_size=60), st.data())
def test_keys_are_found_among_many(keys, data):
    """Also keys in one bucket, and keys with the same beginning or end."""
    listed = [key for key in dict.fromkeys(keys) if key and key.isascii()]
    wanted = data.draw(st.lists(st.sampled_from(listed), unique=True)) if listed else []
    if not wanted:
        return
    editor = edit_items([Action("delete", key.decode()) for key in wanted], Signal.LOGS)
    record = [delimited(6, pair(key, 1)) for key in listed]
    kept = [delimited(6, pair(key, 1)) for key in listed if key not in wanted]
    assert editor.edit(request(b"".join(record)), ORIGIN) == request(b"".join(kept))


@needs_c
def test_errors_of_functions_and_values_are_raised():
    def fail(_value):
        raise ZeroDivisionError

    body = request(span(pair(b"k", 1)))
    delete = [Action("delete", "k")]
    for where in Where:
        editor = edit_items(delete, Signal.TRACES, [ItemCondition(False, where, 5, b"k", fail)])  # noqa: FBT003
        with pytest.raises(ZeroDivisionError):
            editor.edit(body, ORIGIN)
    editor = edit_items(delete, Signal.TRACES)
    for enter in ((fail, int), (int, fail)):
        with pytest.raises(ZeroDivisionError):
            editor.edit(body, ORIGIN, *((lambda _data: 1) if each is int else each for each in enter))
    with pytest.raises(TypeError):
        editor._edit(bytearray(body), (), None, None)
    with pytest.raises(TypeError):
        editor._edit(body, [], None, None)


TYPE = attribute_edits._type(attributes=9)
DELETE = (0, 0, 0, False, False, -1, -1, None, (), False)


@needs_c
@pytest.mark.parametrize(
    ("types", "operations", "conditions", "error"),
    [
        (b"", (), (), ValueError),
        (TYPE[1:], (), (), ValueError),
        (attribute_edits._type({1: 0}), (), (), ValueError),  # of itself
        (attribute_edits._type({1: 1}), (), (), ValueError),  # of a type that does not exist
        (TYPE, ((9, *DELETE[1:]),), (), ValueError),
        (TYPE, ((0, 1, *DELETE[2:]),), (), ValueError),
        (TYPE, ((1, -1, *DELETE[2:]),), (), ValueError),
        (TYPE, ((3, *DELETE[1:]),), (), ValueError),
        (TYPE, ((0, 0),), (), TypeError),
        (TYPE, (), ((False, 3, 0, 0, {}),), ValueError),
        (TYPE, (), ((False, 0, 16, 0, {}),), ValueError),
    ],
)
def test_invalid_plans_are_refused(types, operations, conditions, error):
    with pytest.raises(error):
        native.extension.editor(types, ((b"k", 0),), operations, conditions, None)


@needs_c
def test_nothing_is_leaked():
    actions = [Action("hash", pattern="^k"), Action("extract", "k", pattern="(?P<n>.*)"), Action("insert", "i", "v")]
    condition = ItemCondition(False, Where.BYTES_FIELD, 5, b"", lambda _name: True)  # noqa: FBT003 - a tuple
    bodies = [request(*[span(pair(b"k%d" % number, "v"), pair(b"k", "v"))] * 20) for number in range(5)]

    def work():
        for _ in range(50):
            editor = edit_items(actions, Signal.TRACES, [condition])
            for body in bodies:
                editor.edit(body, ORIGIN, lambda _data: 1, lambda _data: 1)
                editor.edit(body[:-1], ORIGIN, lambda _data: 1, lambda _data: 1)

    work()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        work()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 5_000
    finally:
        tracemalloc.stop()


def test_python_edits_if_there_are_too_many_patterns_or_no_extension_module(monkeypatch):
    many = [Action("delete", pattern=f"^{number}") for number in range(65)]
    assert edit_items(many, Signal.TRACES) is None
    monkeypatch.setattr(native, "extension", None)
    assert edit_items(many[:1], Signal.TRACES) is None


@needs_c
def test_64_patterns_are_not_too_many():
    many = [Action("delete", pattern=f"^{number}$") for number in range(64)]
    body = request(span(*[pair(b"%d" % number, 1) for number in range(70)]))
    left = request(span(*[pair(b"%d" % number, 1) for number in range(64, 70)]))
    assert edit_items(many, Signal.TRACES).edit(body, ORIGIN) == left


def test_the_cache_of_answers_is_bounded(monkeypatch):
    monkeypatch.setattr(attribute_edits, "_MAX_ANSWERS", 10)
    asked = []
    answers = Answers(lambda value: asked.append(value) or len(value))
    for number in range(100):
        assert answers[b"%d" % number] == len(str(number))
    assert len(answers) <= 10
    assert answers[b"x" * 1000] == 1000
    assert b"x" * 1000 not in answers
    assert answers[b"99"] == 2
    assert len(asked) == 101
