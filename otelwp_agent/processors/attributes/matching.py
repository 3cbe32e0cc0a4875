"""Match items against the `include` and `exclude` filters of processors.

A property with several values matches if one of them does; all properties that are set must match, and all of the
attributes. A property that the item's signal does not have (a span name for a log record) matches nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attribute_edits import ItemCondition, Where
from otelwp_agent.model.attributes import Raw, as_string, decode, find, to_any
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.model.attributes import Attributes

    MatchText = Callable[[str], bool]
    MatchGroup = Callable[[pb.Resource, pb.Scope], bool]
    Item = pb.SpanAttributes | pb.LogAttributes | pb.MetricAttributes
    FieldTests = list[tuple[str, Callable[[Any], bool]]]
    """The names of fields of an item, and functions of their values; all must return True."""
    AttributeTests = list[tuple[bytes, Callable[[bytes], bool]]]
    """The keys of attributes, and functions of their serialized values; all must return True."""

SPAN_KINDS = (
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
)
"""Names of span kinds, by their number in trace.proto."""

_SERVICE = b"service.name"


@dataclass(frozen=True, slots=True)
class Severities:
    """Severity numbers that match: from `least` on, and 0 (undefined) if `undefined`."""

    least: int = 0
    undefined: bool = False

    def match(self, number: int) -> bool:
        """Return whether a severity number matches."""
        return number >= self.least if number else self.undefined


@dataclass(frozen=True, slots=True)
class Properties:
    """Properties that items must have.

    Empty means any; with `regexp` texts are regular expressions that match anywhere.
    """

    regexp: bool = False
    services: Sequence[str] = ()
    span_names: Sequence[str] = ()
    span_kinds: Sequence[str] = ()
    log_bodies: Sequence[str] = ()
    log_severity_texts: Sequence[str] = ()
    log_severities: Severities | None = None
    metric_names: Sequence[str] = ()
    attributes: Sequence[tuple[str, Raw]] = ()
    """Keys and values; the value `None` means any."""
    resources: Sequence[tuple[str, Raw]] = ()
    """Keys and values of the resource."""
    libraries: Sequence[tuple[str, str | None]] = ()
    """Names and versions of instrumentation scopes; the version `None` means any."""


@dataclass(slots=True)
class Matcher:
    """Compiled properties for one signal.

    Call `group` for a resource and scope, then the others for each of their items.
    """

    properties: Properties
    signal: Signal
    group: MatchGroup = field(init=False)
    """Returns whether the items of a resource and scope can match."""
    fields: FieldTests = field(init=False)
    tests: AttributeTests = field(init=False)

    by_group: bool = field(init=False)
    """Whether `group` alone decides."""

    def __post_init__(self) -> None:
        """Compile the properties."""
        properties = self.properties
        texts = (properties.span_names, properties.span_kinds, properties.log_bodies, properties.log_severity_texts)
        rest = (properties.metric_names, properties.log_severities, properties.attributes)
        self.by_group = not any((*texts, *rest))
        self.group = _compile_group(properties)
        self.fields = _COMPILE_FIELDS[self.signal](properties)
        self.tests = _compile_attributes(properties.attributes, regexp=properties.regexp)

    def item(self, item: Item) -> bool:
        """Return whether an item matches, if its group does. A metric matches for all its data points."""
        return all(test(getattr(item, name)) for name, test in self.fields)

    def attributes(self, attributes: Attributes) -> bool:
        """Return whether the attributes of an item (for metrics: of a data point) match.

        An item is selected if this and `item` are true.
        """
        return _match_attributes(self.tests, attributes)

    def conditions(self, *, excludes: bool) -> list[ItemCondition]:
        """Return `item` and `attributes` as conditions for an editor."""
        numbers = {each.name: each for each in ITEMS[self.signal].DESCRIPTOR.fields}
        found = []
        for name, test in self.fields:
            described = numbers[name]
            where = Where.BYTES_FIELD if described.type == described.TYPE_BYTES else Where.NUMBER_FIELD
            found.append(ItemCondition(excludes, where, described.number, b"", test))
        return found + [ItemCondition(excludes, Where.ATTRIBUTE, 0, key, test) for key, test in self.tests]


ITEMS: dict[Signal, type[Item]] = {
    Signal.TRACES: pb.SpanAttributes,
    Signal.LOGS: pb.LogAttributes,
    Signal.METRICS: pb.MetricAttributes,
}
"""The projections that the tests of items read."""


def _texts(wanted: Sequence[str], *, regexp: bool) -> MatchText:
    """Return a function that matches texts that equal one of `wanted`, or with `regexp` contain a match of one.

    Without `wanted` it matches any text.
    """
    if not wanted:
        return lambda _text: True
    if not regexp:
        return frozenset(wanted).__contains__
    searches = [re.compile(each).search for each in wanted]
    return lambda text: any(search(text) is not None for search in searches)


def _compile_attributes(wanted: Sequence[tuple[str, Raw]], *, regexp: bool) -> AttributeTests:
    return [(key.encode(), _compile_value(value, regexp=regexp)) for key, value in wanted]


def _match_attributes(tests: AttributeTests, attributes: Attributes) -> bool:
    for key, test in tests:
        attribute = find(attributes, key)
        if attribute is None or not test(attribute.value):
            return False
    return True


def _compile_value(wanted: Raw, *, regexp: bool) -> Callable[[bytes], bool]:
    """Return a function that matches a serialized value: strictly by type and value, or its text by an expression."""
    if wanted is None:
        return lambda _value: True
    if regexp:
        search = re.compile(str(wanted)).search
        return lambda value: search(as_string(decode(value))) is not None
    same = to_any(wanted)
    return lambda value: decode(value) == same


def _compile_group(properties: Properties) -> MatchGroup:
    regexp = properties.regexp
    service = _texts(properties.services, regexp=regexp)
    resources = _compile_attributes(properties.resources, regexp=regexp)
    libraries = [
        (_texts([name], regexp=regexp), None if version is None else _texts([version], regexp=regexp))
        for name, version in properties.libraries
    ]

    def match(resource: pb.Resource, scope: pb.Scope) -> bool:
        if properties.services:
            name = find(resource.attributes, _SERVICE)
            if not service("" if name is None else as_string(decode(name.value))):
                return False
        if not _match_attributes(resources, resource.attributes):
            return False
        return not libraries or any(
            name(_text(scope.name)) and (version is None or version(_text(scope.version)))
            for name, version in libraries
        )

    return match


_NEVER: FieldTests = [("name", lambda _name: False)]
"""Matches no span and no metric: a property is set that they do not have."""


def _compile_span(properties: Properties) -> FieldTests:
    if properties.log_bodies or properties.log_severity_texts or properties.log_severities or properties.metric_names:
        return _NEVER
    tests: FieldTests = []
    if properties.span_names:
        name = _texts(properties.span_names, regexp=properties.regexp)
        tests.append(("name", lambda data: name(_text(data))))
    if properties.span_kinds:
        kind = _texts(properties.span_kinds, regexp=properties.regexp)
        tests.append(("kind", lambda number: kind(SPAN_KINDS[number if number < len(SPAN_KINDS) else 0])))
    return tests


def _compile_log(properties: Properties) -> FieldTests:
    if properties.span_names or properties.span_kinds or properties.metric_names:
        return [("severity_text", lambda _text: False)]
    tests: FieldTests = []
    if properties.log_severities is not None:
        tests.append(("severity_number", properties.log_severities.match))
    if properties.log_bodies:
        body = _texts(properties.log_bodies, regexp=properties.regexp)

        def match(data: bytes) -> bool:
            value = decode(data)
            return value.WhichOneof("value") == "string_value" and body(_text(value.string_value))

        tests.append(("body", match))
    if properties.log_severity_texts:
        severity = _texts(properties.log_severity_texts, regexp=properties.regexp)
        tests.append(("severity_text", lambda data: severity(_text(data))))
    return tests


def _compile_metric(properties: Properties) -> FieldTests:
    logs = properties.log_bodies or properties.log_severity_texts or properties.log_severities
    if logs or properties.span_names or properties.span_kinds:
        return _NEVER
    name = _texts(properties.metric_names, regexp=properties.regexp)
    return [("name", lambda data: name(_text(data)))] if properties.metric_names else []


_COMPILE_FIELDS: dict[Signal, Callable[[Properties], FieldTests]] = {
    Signal.TRACES: _compile_span,
    Signal.LOGS: _compile_log,
    Signal.METRICS: _compile_metric,
}


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
