"""Match items against the `include` and `exclude` filters of processors.

A property with several values matches if one of them does; all properties that are set must match, and all of the
attributes. A property that the item's signal does not have (a span name for a log record) matches nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import Raw, as_string, decode, find, to_any
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.model.attributes import Attributes

    MatchText = Callable[[str], bool]
    MatchAttributes = Callable[[Attributes], bool]
    MatchGroup = Callable[[pb.Resource, pb.Scope], bool]
    Item = pb.SpanAttributes | pb.LogAttributes | pb.MetricAttributes
    MatchItem = Callable[[Item], bool]

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
    item: MatchItem = field(init=False)
    """Returns whether an item matches, if its group does. A metric matches for all its data points."""
    attributes: MatchAttributes = field(init=False)
    """Returns whether the attributes of an item (for metrics: of a data point) match. Both this and `item` must."""

    by_group: bool = field(init=False)
    """Whether `group` alone decides."""

    def __post_init__(self) -> None:
        """Compile the properties."""
        properties = self.properties
        texts = (properties.span_names, properties.span_kinds, properties.log_bodies, properties.log_severity_texts)
        rest = (properties.metric_names, properties.log_severities, properties.attributes)
        self.by_group = not any((*texts, *rest))
        self.group = _compile_group(properties)
        self.item = _COMPILE_ITEM[self.signal](properties)
        self.attributes = _compile_attributes(properties.attributes, regexp=properties.regexp)


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


def _compile_attributes(wanted: Sequence[tuple[str, Raw]], *, regexp: bool) -> MatchAttributes:
    tests = [(key.encode(), _compile_value(value, regexp=regexp)) for key, value in wanted]

    def match(attributes: Attributes) -> bool:
        for key, test in tests:
            attribute = find(attributes, key)
            if attribute is None or not test(attribute.value):
                return False
        return True

    return match


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
    resource_matches = _compile_attributes(properties.resources, regexp=regexp)
    libraries = [
        (_texts([name], regexp=regexp), None if version is None else _texts([version], regexp=regexp))
        for name, version in properties.libraries
    ]

    def match(resource: pb.Resource, scope: pb.Scope) -> bool:
        if properties.services:
            name = find(resource.attributes, _SERVICE)
            if not service("" if name is None else as_string(decode(name.value))):
                return False
        if not resource_matches(resource.attributes):
            return False
        return not libraries or any(
            name(_text(scope.name)) and (version is None or version(_text(scope.version)))
            for name, version in libraries
        )

    return match


def _compile_span(properties: Properties) -> MatchItem:
    if properties.log_bodies or properties.log_severity_texts or properties.log_severities or properties.metric_names:
        return lambda _span: False
    name = _texts(properties.span_names, regexp=properties.regexp)
    kind = _texts(properties.span_kinds, regexp=properties.regexp)

    def match(span: Item) -> bool:
        assert isinstance(span, pb.SpanAttributes)  # noqa: S101 - compiled for this signal
        number = span.kind if span.kind < len(SPAN_KINDS) else 0
        return name(_text(span.name)) and kind(SPAN_KINDS[number])

    return match


def _compile_log(properties: Properties) -> MatchItem:
    if properties.span_names or properties.span_kinds or properties.metric_names:
        return lambda _record: False
    body = _texts(properties.log_bodies, regexp=properties.regexp)
    severity = _texts(properties.log_severity_texts, regexp=properties.regexp)
    numbers = properties.log_severities

    def match(record: Item) -> bool:
        assert isinstance(record, pb.LogAttributes)  # noqa: S101 - compiled for this signal
        if numbers is not None and not numbers.match(record.severity_number):
            return False
        if properties.log_bodies:
            value = decode(record.body)
            if value.WhichOneof("value") != "string_value" or not body(_text(value.string_value)):
                return False
        return severity(_text(record.severity_text))

    return match


def _compile_metric(properties: Properties) -> MatchItem:
    logs = properties.log_bodies or properties.log_severity_texts or properties.log_severities
    if logs or properties.span_names or properties.span_kinds:
        return lambda _metric: False
    name = _texts(properties.metric_names, regexp=properties.regexp)
    return lambda metric: name(_text(metric.name))  # type: ignore[union-attr] # compiled for this signal


_COMPILE_ITEM: dict[Signal, Callable[[Properties], MatchItem]] = {
    Signal.TRACES: _compile_span,
    Signal.LOGS: _compile_log,
    Signal.METRICS: _compile_metric,
}


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
