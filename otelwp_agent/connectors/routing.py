"""Send items to different pipelines by rules, such as those of a tenant or a service to the pipeline of its backend.

The rules of `table` are tried in their order. A rule takes the items that it matches; with `action: copy` later rules
see them, too. Items that no rule takes go to `default_pipelines`; without these, they are filtered out.

Conditions read the request (`request.tenant`, `request["header"]`), attributes of resources and scopes, and fields and
attributes of spans and log records. If the resource decides, requests are forwarded without reading their items.
If a rule reads spans, all spans of a trace in a request go where the first rule that matches one of them sends it.

The settings are those of the Collector's connector of this name. In conditions, `in [...]`, `IsGlob`, `span.root` and
`span.duration_ms` are additions.

Example::

    receivers:
      otlp: {protocols: {http: }}
    exporters:
      debug:
      otlp_http/acme: {endpoint: "https://otlp.acme.example"}
      file/problems: {path: /var/log/otelwp/problems.jsonl}
    connectors:
      routing:
        default_pipelines: [traces/others]
        table:
          - context: request
            condition: request.tenant == "acme"
            pipelines: [traces/acme]
          - context: span
            condition: status.code == STATUS_CODE_ERROR or duration_ms > 2000
            action: copy
            pipelines: [traces/problems]
          - context: resource
            condition: attributes["service.name"] in ["shop", "checkout"]
            pipelines: [traces/acme, traces/others]
    service:
      pipelines:
        traces: {receivers: [otlp], exporters: [routing]}
        traces/acme: {receivers: [routing], exporters: [otlp_http/acme]}
        traces/problems: {receivers: [routing], exporters: [file/problems]}
        traces/others: {receivers: [routing], exporters: [debug]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from otelwp_agent.component import (
    Carries,
    ComponentConfig,
    Connector,
    Context,
    Factory,
    Kind,
    Reads,
    Stability,
    Unfit,
)
from otelwp_agent.config.blocks import Block
from otelwp_agent.config.references import PipelineRef  # noqa: TC001 - pydantic reads it
from otelwp_agent.config.types import Ignored
from otelwp_agent.errors import ConsumeError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.division import Routed, batch_of, divide
from otelwp_agent.routing.facts import Depth
from otelwp_agent.routing.parser import ConditionError, condition_of_statement, parse
from otelwp_agent.routing.table import RoutingRule, RoutingTable
from otelwp_agent.telemetry.metrics import Instrument
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelwp_agent.config.document import Path
    from otelwp_agent.errors import RetryableError
    from otelwp_agent.model.batch import Batch, Origin

ROUTED = Instrument(
    "otelwp_connector_routing_items",
    "Spans, data points and log records that were sent to a pipeline; items that are copied count for each.",
    labels=("connector", "pipeline"),
)
UNMATCHED = Instrument(
    "otelwp_connector_routing_unmatched_items",
    "Spans, data points and log records that no rule took: they went to the default pipelines, or were filtered out.",
    labels=("connector",),
)

_NONE: tuple[bytes, None, list[Routed]] = (b"", None, [])
_SIGNALS = {"span": Signal.TRACES, "log": Signal.LOGS, "metric": Signal.METRICS}
_UNUSED = Ignored("an error in a condition is found when the configuration is checked, and cannot occur later")


class Rule(Block):
    """A row of the table."""

    context: Literal["request", "resource", "scope", "span", "metric", "log"] = "resource"
    """The telemetry that paths without prefix refer to. `span`, `metric` and `log` apply to this signal only."""
    condition: str = ""
    """The condition; empty matches everything."""
    statement: str = ""
    """The Collector's older form of a condition: `route() where …`."""
    pipelines: list[PipelineRef] = Field(min_length=1)
    """Pipelines that get the items, by their ids. Those of other signals than the items are left out."""
    action: Literal["move", "copy"] = "move"
    """`move`: later rules do not see the items. `copy`: they do."""

    @model_validator(mode="after")
    def _valid(self) -> Self:
        if self.condition and self.statement:
            message = "give `condition` or `statement`, not both"
            raise ValueError(message)
        for signal in self.signals:
            try:
                parse(self.text, self.context, signal)
            except ConditionError as error:
                raise ValueError(f"the condition is invalid: {error}") from error
        return self

    @property
    def text(self) -> str:
        """The condition."""
        if self.statement:
            return condition_of_statement(self.statement)
        return self.condition or "true"

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The signals that the rule applies to."""
        only = _SIGNALS.get(self.context)
        return (only,) if only is not None else tuple(signal for signal in Signal if _of(self.pipelines, signal))


class Config(ComponentConfig):
    """The table of rules."""

    table: list[Rule] = Field(min_length=1)
    """The rules, tried in this order."""
    default_pipelines: list[PipelineRef] = Field(default_factory=list)
    """Pipelines for the items that no rule takes."""
    whole_traces: bool = True
    """If a rule reads spans, keep all spans of a trace in a request together. Otherwise each span goes its own way, as
    in the Collector."""
    error_mode: Annotated[Literal["propagate", "ignore", "silent"], _UNUSED] = "propagate"
    """The Collector's setting for errors of conditions at run time."""

    def unfit_for(self, bodies: Carries) -> Unfit | None:
        """Return why encoded bodies cannot be routed: a rule reads more than the request."""
        for place, rule in enumerate(self.table) if bodies is not Carries.PLAIN else ():
            for signal in rule.signals:
                if parse(rule.text, rule.context, signal).depth > Depth.REQUEST:
                    reason = "this rule reads them: use only rules of the context `request`"
                    return Unfit(("table", place), reason)
        return None

    def contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield rules that can never match, because an earlier rule takes their items."""
        for place, rule in enumerate(self.table):
            for first, earlier in enumerate(self.table[:place]):
                same = earlier.text == "true" or (earlier.text, earlier.context) == (rule.text, rule.context)
                if same and earlier.action == "move" and set(rule.signals) <= set(earlier.signals):
                    message = (
                        f"this rule is never reached: rule {first + 1} of the table takes its items before; "
                        "put this rule before it, or remove one of them"
                    )
                    yield ("table", place), message
                    break


class Routing(Connector):
    """Divides each batch by the rules and forwards the parts."""

    def __init__(self, config: Config, context: Context) -> None:
        """Compile the table for each signal."""
        super().__init__(context)
        self._whole_traces = config.whole_traces
        tables = {signal: table_of(config, signal) for signal in Signal}
        self.tables = {signal: table for signal, table in tables.items() if table.rules or table.default}
        """The tables of the signals for which there is a pipeline."""
        self.headers = sorted({name for rule in config.table for name in _headers(rule)})
        self._unmatched = context.registry.counter(UNMATCHED, connector=str(context.id))
        self._last: tuple[bytes, Origin | None, list[Routed]] = _NONE

    def consume(self, batch: Batch) -> None:
        """Forward each part of the batch to its pipelines; raise, with nothing accepted, if one of them is full."""
        if batch.signal not in self.tables:
            self.next[batch.signal].consume(batch)
            return
        routed, self._last = self._divide(batch), _NONE
        if len(routed) == 1 and routed[0].targets:
            self.choose(batch.signal, routed[0].targets).consume(batch)
            self._count(batch, routed[0], batch.items)
            return
        parts = [(part, batch_of(batch, part)) for part in routed]
        if not batch.admitted:
            refusal = self._refusal(parts)
            if refusal is not None:
                try:
                    raise refusal
                finally:
                    del refusal  # else this frame, with the body, and the error would hold each other
        for part, own in parts:
            self._count(own, part, own.items)
            if not part.targets:
                own.settle(Outcome.FILTERED)
                continue
            own.admitted = True
            try:
                self.choose(batch.signal, part.targets).consume(own)
            except ConsumeError as error:
                refused = error.with_traceback(None)
            else:
                continue
            own.settle(Outcome.DROPPED, refused.reason)
            self.context.log.error("items dropped", reason=refused.reason, items=own.items, error=str(refused))

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if a pipeline that gets a part of the batch has no capacity for it, else `None`."""
        if batch.signal not in self.tables:
            return super().refusal(batch)
        return self._refusal([(part, batch_of(batch, part)) for part in self._divide(batch)])

    def _refusal(self, parts: Sequence[tuple[Routed, Batch]]) -> RetryableError | None:
        for part, own in parts:
            if part.targets:
                refusal = self.choose(own.signal, part.targets).refusal(own)
                if refusal is not None:
                    return refusal
        return None

    def _divide(self, batch: Batch) -> list[Routed]:
        """Return the parts of a batch; those of the last one are remembered, because `refusal` comes before `consume`.

        A fan-out gives each branch the same body.
        """
        body, origin, routed = self._last
        if body is not batch.body or origin is not batch.origin:
            table = self.tables[batch.signal]
            routed = divide(table, batch.signal, batch.body, batch.origin, whole_traces=self._whole_traces)
            self._last = (batch.body, batch.origin, routed)
        return routed

    def _count(self, batch: Batch, part: Routed, items: int) -> None:
        for pipeline in part.targets:
            self.context.registry.counter(ROUTED, connector=str(self.context.id), pipeline=pipeline).value += items
        if part.targets == self.tables[batch.signal].default:
            self._unmatched.value += items


def table_of(config: Config, signal: Signal) -> RoutingTable:
    """Return the compiled table for the items of one signal."""
    rules = [
        RoutingRule(f"rule {place + 1}", parse(rule.text, rule.context, signal), targets, rule.action == "copy")
        for place, rule in enumerate(config.table)
        if signal in rule.signals and (targets := _of(rule.pipelines, signal))
    ]
    return RoutingTable(rules, _of(config.default_pipelines, signal))


def _of(pipelines: Sequence[str], signal: Signal) -> tuple[str, ...]:
    """Return the pipelines of one signal."""
    return tuple(name for name in pipelines if name.partition("/")[0] == signal.value)


def _headers(rule: Rule) -> Iterator[str]:
    """Yield the request headers that a rule reads."""
    for signal in rule.signals:
        for reader in parse(rule.text, rule.context, signal).readers:
            if reader.path.startswith('request["'):
                yield reader.path.removeprefix('request["').removesuffix('"]').lower()


FACTORY = Factory(
    Kind.CONNECTOR,
    "routing",
    Config,
    Routing,
    stability=Stability.ALPHA,
    tier=Tier.ENTERPRISE,
    accepts=Carries.ENCODED,
    reads=Reads.ATTRIBUTES,
    instruments=(ROUTED, UNMATCHED),
)
