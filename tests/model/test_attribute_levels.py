import pytest
from hypothesis import given

from otelwp_agent.errors import MalformedError
from otelwp_agent.model.attribute_levels import Level, edit_attributes
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import request
from tests.kit.otlp import full, meaning, signals_and_requests

KEY = "service.name"


def remove(attributes):
    """Remove every attribute of a key."""
    gone = [index for index, pair in enumerate(attributes) if pair.key in (KEY, KEY.encode())]
    for index in reversed(gone):
        del attributes[index]
    return bool(gone)


def messages(signal, message, level):
    """Yield the fully parsed messages at a level."""
    spine = {
        Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
        Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
        Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
    }[signal]
    groups = list(getattr(message, spine[0]))
    scopes = [scope for group in groups for scope in getattr(group, spine[1])]
    items = [item for scope in scopes for item in getattr(scope, spine[2])]
    if level is Level.RESOURCE:
        return [group.resource for group in groups]
    if level is Level.SCOPE:
        return [scope.scope for scope in scopes]
    if level is not Level.ITEM:
        return [each for item in items for each in getattr(item, f"{level.value}s", [])]
    if signal is not Signal.METRICS:
        return items
    return [
        point
        for item in items
        if (kind := item.WhichOneof("data")) is not None
        for point in getattr(item, kind).data_points
    ]


def expected(signal, body, levels):
    message = full(signal, body)
    changed = [remove(each.attributes) for level in levels for each in messages(signal, message, level)]
    return message.SerializeToString(deterministic=True) if any(changed) else None


@given(signals_and_requests())
def test_every_level_is_edited_as_in_the_whole_message_and_nothing_else_changes(drawn):
    signal, body = drawn
    for levels in (*({level} for level in Level), set(Level), {Level.ITEM, Level.EVENT}):
        edited = edit_attributes(signal, body, remove, levels)
        wanted = expected(signal, body, levels)
        assert (None if edited is None else meaning(signal, edited)) == wanted, levels


@pytest.mark.parametrize("signal", Signal)
def test_every_level_that_a_signal_has_is_reached(signal):
    body = request(signal, [KEY])
    reached = {level for level in Level if edit_attributes(signal, body, remove, {level}) is not None}
    inner = {Level.EVENT, Level.LINK} if signal is Signal.TRACES else set()
    assert reached == {Level.RESOURCE, Level.SCOPE, Level.ITEM} | inner
    everywhere = edit_attributes(signal, body, remove)
    assert edit_attributes(signal, everywhere, remove) is None


def test_attributes_can_be_added_to_a_scope_that_has_none():
    body = b"\n\x06\x12\x04\x12\x02\x2a\x00"  # one span without resource and scope

    def add(attributes):
        attributes.add(key=b"key", value=b"\n\x01v")
        return True

    edited = full(Signal.TRACES, edit_attributes(Signal.TRACES, body, add, {Level.RESOURCE, Level.SCOPE}))
    (group,) = edited.resource_spans
    assert [pair.value.string_value for pair in group.resource.attributes] == ["v"]
    assert [pair.value.string_value for pair in group.scope_spans[0].scope.attributes] == ["v"]


def test_items_stay_bytes_where_no_level_needs_them():
    broken = b"\n\x06\x12\x04\x12\x02\xff\xff"  # a span that does not parse
    assert edit_attributes(Signal.TRACES, broken, remove, {Level.RESOURCE, Level.SCOPE}) is None
    with pytest.raises(MalformedError):
        edit_attributes(Signal.TRACES, broken, remove)
