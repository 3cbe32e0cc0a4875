"""Edit the attributes of spans, log records and metric data points, of all or of those that a filter selects.

Place it before `batch` if it uses the sender (`from_context`), because a batch has many senders; otherwise anywhere.
Deleting or changing attributes of data points can give two time series the same identity; they are not merged.

Example::

    processors:
      attributes:
        include:
          match_type: strict
          services: [shop, blog]
        actions:
          - key: user.email
            action: hash
          - key: account_password
            action: delete
          - key: http.status_code
            action: convert
            converted_type: int
          - key: shop.region
            value: eu
            action: insert
"""

from __future__ import annotations

import re
from operator import is_not
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, JsonValue, model_validator

from otelwp_agent.component import ComponentConfig, Context, Effect, Factory, Kind, Processor, Reads, Stability
from otelwp_agent.config.attribute_actions import AttributeAction  # noqa: TC001 - pydantic reads it
from otelwp_agent.config.blocks import Block
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attribute_actions import Shortcut, compile_actions, header_of
from otelwp_agent.model.attribute_edits import edit_items
from otelwp_agent.model.projections import POINT_KINDS, parse
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.attributes.filtering import ItemFilter
from otelwp_agent.processors.attributes.matching import ITEMS, SPAN_KINDS, Properties, Severities

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.attribute_edits import Editor
    from otelwp_agent.model.batch import Batch, Origin

    Way = tuple[ItemFilter, Editor | None]
    """The filter of a signal's items, and the editor of their attributes in C, if it is available."""


class KeyValue(Block):
    """An attribute to match."""

    key: str = Field(min_length=1)
    """Its key."""
    value: JsonValue = None
    """Its value, or with `regexp` an expression for its text; any value if not set. Strict values must have the same
    type: `200` does not match `"200"`."""


class Library(Block):
    """An instrumentation scope to match."""

    name: str
    """Its name."""
    version: str | None = None
    """Its version; any if not set, none if it is ""."""


class SeverityNumber(Block):
    """Severity numbers to match."""

    min: int | str = 0
    """The lowest that matches, as a number (1 to 24) or a name (`INFO`, `WARN2`)."""
    match_undefined: bool = False
    """Whether records without severity match."""

    @model_validator(mode="after")
    def _known(self) -> SeverityNumber:
        severity_number(self.min)
        return self


class RegexpCache(Block):
    """Accepted for compatibility with the Collector: Python compiles expressions once and needs no cache of results."""

    cacheenabled: bool = False
    """Has no effect."""
    cachemaxnumentries: int = 0
    """Has no effect."""


class Match(Block):
    """A filter of items: an item must match every property that is set, by one of its values."""

    match_type: Literal["strict", "regexp"]
    """`strict` compares whole texts; `regexp` uses regular expressions that may match anywhere in a text."""
    regexp: RegexpCache | None = None
    """Accepted for compatibility with the Collector."""
    services: list[str] = Field(default_factory=list)
    """Values of the resource attribute `service.name`."""
    span_names: list[str] = Field(default_factory=list)
    """Names of spans."""
    span_kinds: list[str] = Field(default_factory=list)
    """Kinds of spans, like `SPAN_KIND_SERVER`."""
    log_bodies: list[str] = Field(default_factory=list)
    """Bodies of log records; only bodies that are text match."""
    log_severity_texts: list[str] = Field(default_factory=list)
    """Severity texts of log records."""
    log_severity_number: SeverityNumber | None = None
    """Severity numbers of log records."""
    metric_names: list[str] = Field(default_factory=list)
    """Names of metrics."""
    attributes: list[KeyValue] = Field(default_factory=list)
    """Attributes of the span, log record or data point; all of them must match."""
    resources: list[KeyValue] = Field(default_factory=list)
    """Attributes of the resource; all of them must match."""
    libraries: list[Library] = Field(default_factory=list)
    """Instrumentation scopes."""

    @model_validator(mode="after")
    def _fits(self) -> Match:
        given = self.model_dump(exclude={"match_type", "regexp"}, exclude_defaults=True)
        if not given:
            raise ValueError("no property is set: set `services`, `span_names`, `attributes` or another property")
        if self.match_type == "strict":
            unknown = sorted({*self.span_kinds} - {*SPAN_KINDS})
            if unknown:
                message = f"{unknown[0]!r} is not a span kind: write one of {', '.join(SPAN_KINDS)}"
                raise ValueError(message)
        else:
            self._compile()
        return self

    def _compile(self) -> None:
        """Raise `ValueError` for an invalid regular expression."""
        texts = [*self.services, *self.span_names, *self.span_kinds, *self.log_bodies, *self.log_severity_texts]
        texts += [*self.metric_names, *(text for each in self.libraries for text in (each.name, each.version or ""))]
        for pair in (*self.attributes, *self.resources):
            if pair.value is not None and not isinstance(pair.value, str):
                message = f"{pair.key!r}: with `match_type: regexp` a value must be text: put it in quotes"
                raise ValueError(message)
            texts.append(pair.value or "")
        for text in texts:
            try:
                re.compile(text)
            except re.error as error:
                message = f"{text!r} is not a regular expression: {error}"
                raise ValueError(message) from error

    def to_properties(self) -> Properties:
        """Convert the filter for `processors.attributes.matching`."""
        severities = self.log_severity_number
        return Properties(
            regexp=self.match_type == "regexp",
            services=self.services,
            span_names=self.span_names,
            span_kinds=self.span_kinds,
            log_bodies=self.log_bodies,
            log_severity_texts=self.log_severity_texts,
            log_severities=None
            if severities is None
            else Severities(severity_number(severities.min), severities.match_undefined),
            metric_names=self.metric_names,
            attributes=[(pair.key, pair.value) for pair in self.attributes],
            resources=[(pair.key, pair.value) for pair in self.resources],
            libraries=[(library.name, library.version) for library in self.libraries],
        )


class Config(ComponentConfig):
    """The changes to make, and the items to change."""

    actions: list[AttributeAction] = Field(min_length=1)
    """Actions on the attributes of every selected item, applied in this order."""
    include: Match | None = None
    """The items to change; all if not set. A property that the pipeline's signal does not have matches nothing."""
    exclude: Match | None = None
    """Items to leave unchanged, of those that `include` selects."""


class AttributesProcessor(Processor):
    """Applies attribute actions to items."""

    def __init__(self, config: Config, context: Context) -> None:
        """Compile the actions and filters."""
        super().__init__(context)
        actions = [action.to_action() for action in config.actions]
        self.headers = tuple(header_of(action.from_context) for action in actions if action.from_context)
        self._actions = actions
        self._apply = compile_actions(actions)
        self._shortcut = Shortcut.of(actions)
        self._include = None if config.include is None else config.include.to_properties()
        self._exclude = None if config.exclude is None else config.exclude.to_properties()
        self._ways: dict[Signal, Way] = {}

    def consume(self, batch: Batch) -> None:
        """Forward the batch with its items' attributes changed."""
        body = self._edit(batch)
        self.next.consume(batch if body is None else batch.with_body(body))

    def _edit(self, batch: Batch) -> bytes | None:
        """Return the changed body, or `None` if nothing changed."""
        wanted, editor = self._ways.get(batch.signal) or self._prepare(batch.signal)
        if editor is not None:
            enter = (wanted.enter_resource, wanted.enter_scope) if wanted else (None, None)
            body = editor.edit(batch.body, batch.origin, *enter)
            if body is not None:
                return None if body is batch.body else body
        return self._edit_in_python(batch, wanted)

    def _prepare(self, signal: Signal) -> Way:
        wanted = ItemFilter(self._include, self._exclude, signal)
        way = self._ways[signal] = wanted, edit_items(self._actions, signal, wanted.conditions())
        return way

    def _edit_in_python(self, batch: Batch, wanted: ItemFilter) -> bytes | None:
        """Edit a batch without the extension module, or one with an unusual layout."""
        edit = self._editor(batch, wanted)
        if edit is None:
            return None
        request = parse(pb.Slices.FromString, batch.body)
        changed = False
        for group in request.resources:
            if wanted:
                wanted.enter_resource(group.resource)
            for scoped in group.scopes:
                if wanted and not wanted.enter_scope(scoped.scope):
                    continue
                items = scoped.items[:]
                edited = [edit(data) for data in items]
                if any(map(is_not, items, edited)):
                    scoped.ClearField("items")
                    scoped.items.extend(edited)
                    changed = True
        return request.SerializeToString() if changed else None

    def _editor(self, batch: Batch, wanted: ItemFilter) -> Callable[[bytes], bytes] | None:
        """Return a function from an item's bytes to its edited bytes, or `None` if no item can change.

        It returns the same object for an unchanged item.
        """
        signal, origin, shortcut = batch.signal, batch.origin, self._shortcut
        read = ITEMS[signal].FromString
        apply = self._edit_metric if signal is Signal.METRICS else self._edit_item

        def parse_and_edit(data: bytes) -> bytes:
            item = parse(read, data)
            return item.SerializeToString() if apply(item, origin, wanted) else data

        if shortcut is None:
            return parse_and_edit
        added = shortcut.added(origin)
        absent = shortcut.holds(batch.body)
        if absent and not added:
            return None
        if signal is Signal.METRICS or wanted.reads_items:
            return parse_and_edit
        message: Any = ITEMS[signal]
        suffix: bytes = message(attributes=added).SerializeToString()
        if absent:
            return lambda data: data + suffix
        return lambda data: data + suffix if shortcut.holds(data) else parse_and_edit(data)

    def _edit_item(self, item: Any, origin: Origin, wanted: ItemFilter) -> bool:  # noqa: ANN401 - a span or log record
        if wanted and not wanted.match(item, item.attributes):
            return False
        return self._apply(item.attributes, origin)

    def _edit_metric(self, metric: Any, origin: Origin, wanted: ItemFilter) -> bool:  # noqa: ANN401 - a MetricAttributes
        changed = False
        for kind in POINT_KINDS:
            if metric.HasField(kind):
                for point in getattr(metric, kind).data_points:
                    if wanted and not wanted.match(metric, point.attributes):
                        continue
                    changed |= self._apply(point.attributes, origin)
        return changed


_SEVERITIES = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


def severity_number(value: int | str) -> int:
    """Return a severity number (0 to 24) from itself or its name; raise `ValueError` for anything else."""
    if isinstance(value, int):
        if value in range(25):
            return value
    else:
        match = re.fullmatch(r"(?:SEVERITY_NUMBER_)?([A-Z]+)([2-4]?)", value.upper())
        if match and match[1] in _SEVERITIES:
            return _SEVERITIES.index(match[1]) * 4 + int(match[2] or 1)
    message = f"{value!r} is not a severity: write a number from 1 to 24, or a name like INFO or WARN2"
    raise ValueError(message)


FACTORY = Factory(
    Kind.PROCESSOR,
    "attributes",
    Config,
    AttributesProcessor,
    stability=Stability.STABLE,
    reads=Reads.ATTRIBUTES,
    effects=frozenset({Effect.EDITS}),
)
