"""Make the traces of WordPress readable, and safe to send: names, sites, plugins, findings, and nobody's data.

It belongs before `batch` and before samplers, so that it sees a request whole and from its sender. It takes what our
plugin sends, the founding plugin's spans and those of OpenTelemetry's instrumentation for WordPress:

* The request's span gets `http.route`, `wordpress.request.type` and a name of low cardinality: `GET single`,
  `GET rest /wp/v2/posts/{id}`, `POST ajax heartbeat`. A name that a sender chose with care stays.
* Site and host of a multisite network stand on the resource, and in the end of `service.name` (a feature of the
  enterprise tier).
* Paths of code begin at WordPress's folder, and say which plugin or theme they belong to.
* Query secrets, user ids, logins, e-mail addresses, search terms, cookies and the literals in SQL are removed.
* Queries that ran again and again, and slow ones, are events on the request's span: `wordpress.db.n_plus_one`,
  `wordpress.db.slow_query`.
* Inner `WP.*` spans, which claim to be servers, are internal.

Spans and resources that need nothing of that pass as they came.

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
from typing import TYPE_CHECKING, Literal

from google.protobuf.message import DecodeError
from pydantic import Field, field_validator, model_validator

from otelwp_agent.component import ComponentConfig, Context, Factory, Kind, Processor, Stability, Tier
from otelwp_agent.config.blocks import Block
from otelwp_agent.config.types import Duration, Secret  # noqa: TC001 - pydantic reads it
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import as_string, decode, find
from otelwp_agent.model.projections import parse
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.site import UNKNOWN, site_of
from otelwp_agent.model.wire import prefixed
from otelwp_agent.model.wordpress import queries
from otelwp_agent.model.wordpress.attributes import Reader, key_value
from otelwp_agent.model.wordpress.redaction import Redactor
from otelwp_agent.model.wordpress.routes import Page, Routes
from otelwp_agent.telemetry.metrics import Instrument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.wordpress.attributes import Known

    Facts = dict[str, object]
    _Block = tuple[bytes | None, Facts]
    """A span's attributes as they go on, serialized as fields of it (`None`: as they came), and what they tell."""

FINDINGS = Instrument(
    "otelwp_processor_wordpress_findings",
    "Events added: `n_plus_one` for queries that ran again and again, `slow_query`.",
    labels=("processor", "pipeline", "finding"),
)

_ATTRIBUTE = b"\x4a"
"""The tag of `attributes` in trace.proto's Span (9)."""
_SERVER, _INTERNAL = 2, 1
_REMOTE = 0x300
"""Bits of Span.flags that say: it is known whether the parent is remote, and it is."""
_OURS = re.compile(rb"wordpress|otelwp|WordPress")
_CONSTANT_NAME = re.compile(rb"wordpress\.request|[A-Z]+(?: /\S*)?")
"""Names that say nothing, or have an address in them."""
_EVENT_WORTH_READING = re.compile(rb"@|db\.|url|http\.|user|code\.")
_BLOCKS = 2048
_MAX_BLOCK = 1024
"""Sets of attributes that are remembered, and the bytes of the largest; together they bound the memory."""
_RESOURCES = 256
"""Resources that are remembered with what became of them."""
_MAX_RESOURCE = 4096


class Multisite(Block):
    """How the sites of a network are told apart (enterprise tier)."""

    enabled: bool = True
    """Put the site on the resource and into `service.name`."""
    suffix: str = "-site-{id}"
    """What `service.name` ends with on every site but the first; "" leaves the name."""

    @field_validator("suffix")
    @classmethod
    def _tells_sites_apart(cls, suffix: str) -> str:
        if suffix and "{id}" not in suffix:
            message = f"{suffix!r} is the same for every site: write `{{id}}` where its number belongs"
            raise ValueError(message)
        return suffix


class Redact(Block):
    """What is taken out of attributes, events and status messages."""

    enabled: bool = True
    """Take people and secrets out."""
    mode: Literal["remove", "hash"] = "remove"
    """`remove` leaves nothing or REDACTED; `hash` leaves a keyed hash, so that equal values can still be told."""
    hash_key: Secret | None = None
    """The key of the hash: without a secret one, anybody could try all user ids."""
    sql: bool = True
    """Put `?` for the values in SQL."""
    parameters: list[str] = Field(default_factory=list)
    """Query parameters to hide beside those that look like secrets, people or search terms."""
    attributes: list[str] = Field(default_factory=list)
    """Attributes to hide beside those of users, client addresses, cookies and credentials."""

    @model_validator(mode="after")
    def _key_for_hashes(self) -> Redact:
        if self.mode == "hash" and (self.hash_key is None or not self.hash_key.get_secret_value()):
            raise ValueError("mode: hash needs a `hash_key`, like `${env:REDACTION_KEY}`; or write `mode: remove`")
        return self


class Config(ComponentConfig):
    """Settings of the WordPress processor."""

    multisite: Multisite = Multisite()
    """Sites of a network."""
    routes: bool = True
    """Name requests by their route."""
    code: bool = True
    """Make paths of code relative, and add `wordpress.plugin` or `wordpress.theme`."""
    redact: Redact = Redact()
    """What is taken out."""
    n_plus_one: int = Field(10, ge=0)
    """Equal queries under one span that are worth an event; 0 for never."""
    slow_query: Duration = 0.1
    """Time of one query that is worth an event; 0 for never."""


class WordPressProcessor(Processor):
    """Names, enriches, redacts."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings."""
        super().__init__(context)
        redact = config.redact
        redactor = None
        if redact.enabled:
            key = redact.hash_key.get_secret_value().encode() if redact.hash_key and redact.mode == "hash" else None
            redactor = Redactor(key, redact.attributes, redact.parameters)
        self._redactor = redactor
        self._read = Reader(redactor, code=config.code, sql_literals=not redact.sql).read
        self._routes = Routes() if config.routes else None
        self._multisite = config.multisite.enabled
        self._suffix = config.multisite.suffix
        self._least = config.n_plus_one
        self._slow = int(config.slow_query * 1e9)
        self._known: dict[tuple[bytes, ...], _Block] = {}
        self._resources: dict[tuple[bytes | None, str, str], bytes | None] = {}
        self._found = {
            name.encode(): context.registry.counter(
                FINDINGS, processor=str(context.id), pipeline=context.pipeline, finding=name.rpartition(".")[2]
            )
            for name in (queries.N_PLUS_ONE, queries.SLOW)
        }

    def consume(self, batch: Batch) -> None:
        """Hand the batch on, its spans and resources changed where they need it."""
        request = parse(pb.Slices.FromString, batch.body)
        host = site_of(batch.origin.headers.get("user-agent", ""))
        changed = False
        for group in request.resources:
            changed |= self._edit_group(group, "" if host == UNKNOWN else host)
        self.next.consume(batch.with_body(request.SerializeToString()) if changed else batch)

    def _edit_group(self, group: pb.SlicesResource, host: str) -> bool:
        """Change what one resource sent; return whether anything was."""
        resource = group.resource if group.HasField("resource") else None
        requests = _Requests(queries.Queries(self._least, self._slow))
        ours = _OURS.search(resource or b"") is not None
        edited = []
        for scoped in group.scopes:
            spans = _Spans(list(scoped.items), is_wordpress=ours or _OURS.search(scoped.scope) is not None)
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
        if self._multisite:
            new = self._edit_resource(resource, requests.site_id, requests.site_host or host)
            if new is not None and new != resource:
                group.resource = new
                changed = True
        return changed

    def _edit_span(self, spans: _Spans, index: int, data: bytes, requests: _Requests) -> None:
        span = parse(pb.WordPressSpan.FromString, data)
        attributes = (*span.attributes,)
        new, facts = self._known.get(attributes) or self._work_out(attributes)
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
            if b"@" in span.status:
                changed |= self._edit_status(span, redactor)
        if changed:
            data = span.SerializeToString()
            spans.items[index] = data if new is None else data + new
            spans.changed = True

    def _work_out(self, attributes: tuple[bytes, ...]) -> _Block:
        """Return what becomes of a span's attributes, and what they tell; most spans come again and again."""
        knowns = [self._read(each) for each in attributes]
        facts: Facts = {known.fact: known.value for known in knowns if known.fact}
        new = _replaced(attributes, knowns, facts)
        block = (None if new is None else b"".join([prefixed(_ATTRIBUTE, each) for each in new]), facts)
        if sum(map(len, attributes)) <= _MAX_BLOCK:
            if len(self._known) >= _BLOCKS:
                self._known.clear()
            self._known[attributes] = block
        return block

    def _name(self, span: pb.WordPressSpan, facts: Facts, requests: _Requests, *, is_wordpress: bool) -> bool:
        """Name the span of a request by its route, and note its site."""
        if "site_id" in facts or "site_host" in facts:
            requests.note_site(facts)
        if self._routes is None or "route" in facts or not (is_wordpress or span.name == b"wordpress.request"):
            return False
        if not _CONSTANT_NAME.fullmatch(span.name):
            return False
        page = _page(facts)
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
            if not _EVENT_WORTH_READING.search(data):
                continue
            try:
                event = pb.EventAttributes.FromString(data)
            except DecodeError:
                continue
            knowns = [self._read(each) for each in event.attributes]
            new = _replaced(event.attributes, knowns, {"plugin": "", "theme": "", "logged_in": ""})
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

    def _add_findings(self, requests: _Requests, scopes: Sequence[_Spans]) -> None:
        """Append events to the span of the request, or of the parent where that has not come along."""
        for trace_id, parent, event in requests.queries.findings():
            place = requests.roots.get(trace_id) or _find(scopes, trace_id, parent)
            name = queries.N_PLUS_ONE.encode() if queries.N_PLUS_ONE.encode() in event else queries.SLOW.encode()
            if place is None:
                continue
            spans, index = place
            if not spans.told(index, name):
                spans.put(index, spans.items[index] + event)
                self._found[name].add()

    def _edit_resource(self, resource: bytes | None, site_id: str, host: str) -> bytes | None:
        """Return the resource with the site on it; what was once worked out is remembered."""
        key = (resource, site_id, host)
        if key in self._resources:
            return self._resources[key]
        new = self._with_site(resource or b"", site_id, host)
        if resource is None or len(resource) <= _MAX_RESOURCE:
            if len(self._resources) >= _RESOURCES:
                self._resources.clear()
            self._resources[key] = new
        return new

    def _with_site(self, data: bytes, site_id: str, host: str) -> bytes | None:
        resource = parse(pb.Resource.FromString, data)
        attributes = resource.attributes
        known_id, known_host = find(attributes, b"wordpress.site.id"), find(attributes, b"wordpress.site.host")
        changed = False
        if known_id is None and site_id:
            attributes.add().MergeFromString(key_value("wordpress.site.id", int(site_id)))
            changed = True
        if known_host is None and host:
            attributes.add().MergeFromString(key_value("wordpress.site.host", host))
            changed = True
        number = as_string(decode(known_id.value)) if known_id is not None else site_id
        name = find(attributes, b"service.name")
        # Our plugin knows its site better, and has named it.
        if name is not None and self._suffix and number.isdigit() and int(number) > 1 and b"otelwp" not in data:
            text, suffix = as_string(decode(name.value)), self._suffix.replace("{id}", number)
            if not text.endswith(suffix):
                name.MergeFromString(key_value("service.name", text + suffix))
                changed = True
        return resource.SerializeToString() if changed else None


class _Spans:
    """The spans of one scope, and whether one of them was changed."""

    __slots__ = ("_told", "changed", "is_wordpress", "items")

    def __init__(self, items: list[bytes], *, is_wordpress: bool) -> None:
        self.items = items
        self.is_wordpress = is_wordpress
        self.changed = False
        self._told: dict[tuple[int, bytes], bool] = {}

    def put(self, index: int, data: bytes) -> None:
        """Replace a span."""
        self.items[index] = data
        self.changed = True

    def told(self, index: int, name: bytes) -> bool:
        """Whether the span came with findings of that name: then its sender knows better."""
        key = (index, name)
        if key not in self._told:
            self._told[key] = name in self.items[index]
        return self._told[key]


class _Requests:
    """What is learned of the requests of one resource while its spans are read."""

    __slots__ = ("_sites", "queries", "roots", "site_host")

    def __init__(self, found: queries.Queries) -> None:
        self.queries = found
        self.roots: dict[bytes, tuple[_Spans, int]] = {}
        self.site_host = ""
        self._sites: set[str] = set()

    def note_site(self, facts: Facts) -> None:
        """Note the site that a request's span tells of."""
        site_id = str(facts.get("site_id", ""))
        if site_id.isascii() and site_id.isdigit() and len(site_id) < 19:  # noqa: PLR2004 - 64 bits
            self._sites.add(site_id)
        self.site_host = str(facts.get("site_host") or self.site_host)

    @property
    def site_id(self) -> str:
        """The one site that all of them belong to, or ""."""
        return next(iter(self._sites)) if len(self._sites) == 1 else ""


def _replaced(attributes: Sequence[bytes], knowns: Sequence[Known], facts: Facts) -> list[bytes] | None:
    """Return the attributes as they go on; `None` if all of them stay."""
    new: list[bytes] = []
    changed = False
    for data, known in zip(attributes, knowns, strict=True):
        if known.new is None:
            new.append(data)
        else:
            new += known.new
            changed = True
        name, added = known.added
        if name and name not in facts:
            facts[name] = True
            new.append(added)
            changed = True
    return new if changed else None


def _find(scopes: Sequence[_Spans], trace_id: bytes, span_id: bytes) -> tuple[_Spans, int] | None:
    """Return where a span is; few are looked for, so all are read again then."""
    for spans in scopes:
        for index, data in enumerate(spans.items):
            if span_id in data:
                span = parse(pb.WordPressSpan.FromString, data)
                if span.span_id == span_id and span.trace_id == trace_id:
                    return spans, index
    return None


def _page(facts: Facts) -> Page:
    """Return what the facts tell of a page."""
    path, query = str(facts.get("path", "")), str(facts.get("query", ""))
    url = str(facts.get("url", ""))
    if url:
        rest, _, found = url.partition("#")[0].partition("?")
        query = query or found
        if not path:
            host, slash, rest = rest.rpartition("://")[2].partition("/")
            path = slash + rest if host or slash else ""
    method = str(facts.get("method", ""))
    status = facts.get("status", 0)
    return Page(
        method=method if method.isalpha() and method.isupper() and len(method) < 10 else "",  # noqa: PLR2004 - verbs
        path=path,
        query=query,
        status=status if type(status) is int else 0,
        admin=facts.get("admin") is True,
        cron=facts.get("cron") is True,
    )


FACTORY = Factory(
    Kind.PROCESSOR,
    "wordpress",
    Config,
    WordPressProcessor,
    signals=frozenset({Signal.TRACES}),
    stability=Stability.BETA,
    tier=Tier.FREE,
    reads="attributes",
    instruments=(FINDINGS,),
)
