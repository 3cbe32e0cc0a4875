"""Name, enrich and redact traces of WordPress, and report repeated and slow queries.

Place it before `batch` and before samplers, so that it receives whole requests and knows their sender. It supports the
spans of this project's plugin, of the first WordPress plugin, and of OpenTelemetry's instrumentation for WordPress:

* The request's span gets `http.route`, `wordpress.request.type` and a name of low cardinality: `GET single`, `GET rest
  /wp/v2/posts/{id}`, `POST ajax heartbeat`. A more specific name from the sender is kept.
* Site and host of a multisite network are added to the resource, and to the end of `service.name` (enterprise tier).
* Paths of code become relative to WordPress's folder, with the name of the plugin or theme that they belong to.
* Secrets in query strings, user ids, logins, e-mail addresses, search terms, cookies, literals in SQL, and passwords,
  keys and tokens in any text are removed.
* Repeated queries and slow ones become events on the request's span: `wordpress.db.n_plus_one`,
  `wordpress.db.slow_query`.
* Inner `WP.*` spans with the kind server become internal.

All other spans and resources are forwarded unchanged.

Example::

    processors:
      wordpress:
        multisite:
          suffix: -site-{id}
        redact:
          mode: remove
          parameters: [voucher]
        n_plus_one: 10
        slow_query: 100ms
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from pydantic import Field

from otelwp_agent.component import ComponentConfig, Context, Effect, Factory, Kind, Processor, Reads, Stability, Tier
from otelwp_agent.config.types import Duration  # noqa: TC001 - pydantic reads it
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import parse
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.site import UNKNOWN, site_of
from otelwp_agent.processors.wordpress import queries
from otelwp_agent.processors.wordpress.attributes import AttributeEditor, key_value, page_of
from otelwp_agent.processors.wordpress.config import Multisite, Redact
from otelwp_agent.processors.wordpress.redaction import Redactor
from otelwp_agent.processors.wordpress.requests import Requests, Spans, find
from otelwp_agent.processors.wordpress.resources import Resources
from otelwp_agent.processors.wordpress.routes import Routes
from otelwp_agent.processors.wordpress.spans import Blocks, replaced
from otelwp_agent.telemetry.metrics import Instrument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.processors.wordpress.attributes import Facts

FINDINGS = Instrument(
    "otelwp_processor_wordpress_findings",
    "Events added for repeated queries (`n_plus_one`) and slow queries (`slow_query`).",
    labels=("processor", "pipeline", "finding"),
)

_SERVER, _INTERNAL = 2, 1
_REMOTE = 0x300
"""Bits of Span.flags: whether the parent is remote is known, and it is."""
_OURS = re.compile(rb"wordpress|otelwp|WordPress")
_CONSTANT_NAME = re.compile(rb"wordpress\.request|[A-Z]+(?: /\S*)?")
"""Names without information, or that contain an address."""
_STATUS_CODE_SIZE = 2
"""Bytes of a status without a message."""


class Config(ComponentConfig):
    """Settings of the WordPress processor."""

    multisite: Multisite = Multisite()
    """Sites of a multisite network."""
    routes: bool = True
    """Name requests by their route."""
    code: bool = True
    """Make paths of code relative, and add `wordpress.plugin` or `wordpress.theme`."""
    redact: Redact = Redact()
    """Data to remove."""
    n_plus_one: int = Field(10, ge=0)
    """Number of equal queries under one span from which an event is added; 0 for never."""
    slow_query: Duration = 0.1
    """Duration of a query from which an event is added; 0 for never."""


class WordPressProcessor(Processor):
    """Names, enriches and redacts spans."""

    headers = ("user-agent",)

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings."""
        super().__init__(context)
        redact = config.redact
        redactor = None
        if redact.enabled:
            key = redact.hash_key.get_secret_value().encode() if redact.hash_key and redact.mode == "hash" else None
            redactor = Redactor(key, redact.attributes, redact.parameters)
        self._redactor = redactor
        self._read = AttributeEditor(redactor, code=config.code, sql_literals=not redact.sql).read
        self._routes = Routes() if config.routes else None
        self._resources = Resources(config.multisite.suffix) if config.multisite.enabled else None
        self._least = config.n_plus_one
        self._slow = int(config.slow_query * 1e9)
        self._blocks = Blocks(self._read)
        self._found = {
            name.encode(): context.registry.counter(
                FINDINGS, processor=str(context.id), pipeline=context.pipeline, finding=name.rpartition(".")[2]
            )
            for name in (queries.N_PLUS_ONE, queries.SLOW)
        }

    def consume(self, batch: Batch) -> None:
        """Forward the batch with its spans and resources changed where necessary."""
        request = parse(pb.Slices.FromString, batch.body)
        host = site_of(batch.origin.headers.get("user-agent", ""))
        changed = False
        for group in request.resources:
            changed |= self._edit_group(group, "" if host == UNKNOWN else host)
        self.next.consume(batch.with_body(request.SerializeToString()) if changed else batch)

    def _edit_group(self, group: pb.SlicesResource, host: str) -> bool:
        """Edit the spans of one resource; return whether anything changed."""
        resource = group.resource if group.HasField("resource") else None
        requests = Requests(queries.Queries(self._least, self._slow))
        ours = _OURS.search(resource or b"") is not None
        edited = []
        for scoped in group.scopes:
            spans = Spans(list(scoped.items), is_wordpress=ours or _OURS.search(scoped.scope) is not None)
            for index, data in enumerate(spans.items):
                self._edit_span(spans, index, data, requests)
            edited.append(spans)
        self._add_findings(requests, edited)
        changed = False
        for scoped, spans in zip(group.scopes, edited, strict=True):
            if spans.changed:
                scoped.ClearField("items")
                scoped.items.extend(spans.items)
                changed = True
        if self._resources is not None:
            new = self._resources.with_site(resource, requests.site_id, requests.site_host or host)
            if new is not None and new != resource:
                group.resource = new
                changed = True
        return changed

    def _edit_span(self, spans: Spans, index: int, data: bytes, requests: Requests) -> None:
        span = parse(pb.WordPressSpan.FromString, data)
        new, facts = self._blocks.get((*span.attributes,))
        parent = span.parent_span_id
        is_root = not parent or span.flags & _REMOTE == _REMOTE
        if is_root:
            requests.roots.setdefault(span.trace_id, (spans, index))
        changed = new is not None
        if new is not None:
            span.ClearField("attributes")
        if "sql" in facts:
            requests.queries.add(
                span.trace_id,
                parent,
                str(facts["sql"]),
                span.start_time_unix_nano,
                span.end_time_unix_nano,
            )
        if is_root:
            changed |= self._name(span, facts, requests, is_wordpress=spans.is_wordpress)
        elif span.kind == _SERVER and span.name.startswith(b"WP."):
            span.kind = _INTERNAL
            changed = True
        redactor = self._redactor
        if redactor is not None:
            if span.events:
                changed |= self._edit_events(span)
            if len(span.status) > _STATUS_CODE_SIZE:
                changed |= self._edit_status(span, redactor)
        if changed:
            data = span.SerializeToString()
            spans.items[index] = data if new is None else data + new
            spans.changed = True

    def _name(self, span: pb.WordPressSpan, facts: Facts, requests: Requests, *, is_wordpress: bool) -> bool:
        """Name the span of a request by its route, and record its site."""
        if "site_id" in facts or "site_host" in facts:
            requests.record_site(facts)
        if self._routes is None or "route" in facts or not (is_wordpress or span.name == b"wordpress.request"):
            return False
        if not _CONSTANT_NAME.fullmatch(span.name):
            return False
        page = page_of(facts)
        type_, route = self._routes.name(page)
        span.name = f"{page.method} {route}".strip().encode()
        span.attributes.append(key_value("wordpress.request.type", type_))
        if page.method:
            span.attributes.append(key_value("http.route", route))
        return True

    def _edit_events(self, span: pb.WordPressSpan) -> bool:
        """Redact the attributes of events; return whether anything changed."""
        changed = False
        for index, data in enumerate((*span.events,)):
            try:
                event = pb.EventAttributes.FromString(data)
            except DecodeError:
                continue
            knowns = [self._read(each) for each in event.attributes]
            new = replaced(event.attributes, knowns, {"plugin": "", "theme": "", "logged_in": ""})
            if new is not None:
                event.ClearField("attributes")
                event.attributes.extend(new)
                span.events[index] = event.SerializeToString()
                changed = True
        return changed

    @staticmethod
    def _edit_status(span: pb.WordPressSpan, redactor: Redactor) -> bool:
        """Redact the status message; return whether it changed."""
        try:
            status = pb.StatusMessage.FromString(span.status)
        except DecodeError:
            return False
        text = status.message.decode(errors="replace")
        redacted = redactor.text(text)
        if redacted == text:
            return False
        status.message = redacted.encode()
        span.status = status.SerializeToString()
        return True

    def _add_findings(self, requests: Requests, scopes: Sequence[Spans]) -> None:
        """Append events to the span of the request, or to the parent where the request's span is missing."""
        for trace_id, parent, event in requests.queries.findings():
            place = requests.roots.get(trace_id) or find(scopes, trace_id, parent)
            name = queries.N_PLUS_ONE.encode() if queries.N_PLUS_ONE.encode() in event else queries.SLOW.encode()
            if place is None:
                continue
            spans, index = place
            if not spans.has_finding(index, name):
                spans.put(index, spans.items[index] + event)
                self._found[name].add()


FACTORY = Factory(
    Kind.PROCESSOR,
    "wordpress",
    Config,
    WordPressProcessor,
    signals=frozenset({Signal.TRACES}),
    stability=Stability.BETA,
    tier=Tier.FREE,
    reads=Reads.ATTRIBUTES,
    effects=frozenset({Effect.EDITS}),
    instruments=(FINDINGS,),
)
