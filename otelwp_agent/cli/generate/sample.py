"""Sample telemetry of a WordPress site in OTLP: page requests as traces, their metrics and log records.

Deterministic: the same seed and times give the same telemetry. Names follow OpenTelemetry's semantic conventions 1.36.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1 import logs_pb2 as logs
from opentelemetry.proto.metrics.v1 import metrics_pb2 as metrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MS = 1_000_000
"""Nanoseconds per millisecond."""

SCOPE = InstrumentationScope(name="otelwp-agent generate", version="1")

Value = str | int | float | bool


def _attributes(values: Mapping[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in values.items()]


def _value(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=value)


@dataclass(frozen=True, slots=True)
class _Page:
    """A page of the site: its route, an example path, its template and its share of the visits."""

    route: str
    path: str
    template: str
    visits: int


@dataclass(frozen=True, slots=True)
class _Work:
    """An operation of a page: the span's name, kind, typical duration in milliseconds and attributes."""

    name: str
    kind: trace.Span.SpanKind.ValueType
    ms: float
    attributes: Sequence[KeyValue]


PAGES = (
    _Page("/", "/", "front-page.php", 30),
    _Page("/{post}/", "/hello-world/", "single.php", 25),
    _Page("/product/{slug}/", "/product/blue-hoodie/", "single-product.php", 20),
    _Page("/shop/", "/shop/", "archive-product.php", 12),
    _Page("/cart/", "/cart/", "page-cart.php", 6),
    _Page("/checkout/", "/checkout/", "page-checkout.php", 4),
    _Page("/wp-admin/admin-ajax.php", "/wp-admin/admin-ajax.php", "", 3),
)


def _query(operation: str, table: str, ms: float, text: str) -> _Work:
    return _Work(
        f"{operation} {table}",
        trace.Span.SPAN_KIND_CLIENT,
        ms,
        _attributes(
            {
                "db.system.name": "mysql",
                "db.namespace": "wordpress",
                "db.operation.name": operation,
                "db.collection.name": table,
                "db.query.text": text,
                "server.address": "127.0.0.1",
            }
        ),
    )


WORK = (
    _query("SELECT", "wp_options", 0.8, "SELECT option_name, option_value FROM wp_options WHERE autoload = ?"),
    _query("SELECT", "wp_posts", 2.5, "SELECT wp_posts.* FROM wp_posts WHERE post_name = ? AND post_type = ? LIMIT ?"),
    _query("SELECT", "wp_postmeta", 1.6, "SELECT post_id, meta_key, meta_value FROM wp_postmeta WHERE post_id IN (?)"),
    _Work(
        "wp_cache_get",
        trace.Span.SPAN_KIND_INTERNAL,
        0.1,
        _attributes({"wp.cache.group": "posts", "wp.cache.hit": True}),
    ),
    _query("SELECT", "wp_terms", 1.9, "SELECT t.*, tt.* FROM wp_terms t JOIN wp_term_taxonomy tt ON ? = ?"),
    _Work(
        "do_action wp_enqueue_scripts",
        trace.Span.SPAN_KIND_INTERNAL,
        4.0,
        _attributes({"wp.hook": "wp_enqueue_scripts"}),
    ),
    _Work(
        "POST",
        trace.Span.SPAN_KIND_CLIENT,
        60.0,
        _attributes(
            {
                "http.request.method": "POST",
                "url.full": "https://api.payments.example/v1/rates",
                "server.address": "api.payments.example",
                "server.port": 443,
                "http.response.status_code": 200,
            }
        ),
    ),
    _query("UPDATE", "wp_options", 1.2, "UPDATE wp_options SET option_value = ? WHERE option_name = ?"),
    _query("SELECT", "wp_users", 0.9, "SELECT * FROM wp_users WHERE ID = ? LIMIT ?"),
)

VISITS = tuple(itertools.accumulate(page.visits for page in PAGES))

METRICS = ("http.server.request.duration", "wordpress.db.queries", "php.memory.usage")

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Bucket bounds of `http.server.request.duration`, in seconds."""

MESSAGES = (
    (logs.SEVERITY_NUMBER_INFO, "INFO", "WP-Cron: event wp_version_check done in {ms} ms"),
    (logs.SEVERITY_NUMBER_INFO, "INFO", "WooCommerce: order #{number} moved from pending to processing"),
    (logs.SEVERITY_NUMBER_WARN, "WARN", "Slow query: {ms} ms, called from WP_Query->get_posts"),
)
FAILURE = "PHP Fatal error: Uncaught mysqli_sql_exception: Lock wait timeout exceeded"


class Sample:
    """Makes telemetry of `service`; a share `errors` (0 to 1) of the pages and log records are failures."""

    def __init__(
        self, service: str = "wordpress", *, spans_per_trace: int = 8, errors: float = 0.0, seed: int | None = None
    ) -> None:
        """Make traces of `spans_per_trace` spans (at least 1), reproducible with a `seed`."""
        self.spans_per_trace = spans_per_trace
        self.errors = errors
        self._chance = random.Random(seed)  # noqa: S311 - sample data, not secrets
        self._resource = Resource(
            attributes=_attributes(
                {
                    "service.name": service,
                    "service.version": "6.8.1",
                    "deployment.environment.name": "sample",
                    "telemetry.sdk.language": "php",
                    "host.name": "web-01.example",
                }
            )
        )
        self._started = 0
        self._durations: dict[tuple[str, str], metrics.HistogramDataPoint] = {}
        self._queries: dict[tuple[str, str], int] = {}

    def make(self, signal: Signal, count: int, now: int) -> bytes:
        """Return an OTLP export request with `count` traces, data points or log records that end at `now` (ns)."""
        if signal is Signal.TRACES:
            return self._traces(count, now)
        return self._metrics(count, now) if signal is Signal.METRICS else self._logs(count, now)

    def items(self, signal: Signal, count: int) -> int:
        """Return the number of items in the result of `make`: spans, data points or log records."""
        return count * self.spans_per_trace if signal is Signal.TRACES else count

    def _traces(self, count: int, now: int) -> bytes:
        """Return `count` traces, each of one page request."""
        scope = trace.ScopeSpans(scope=SCOPE)
        for _ in range(count):
            scope.spans.extend(self._page(now))
        resource = trace.ResourceSpans(resource=self._resource, scope_spans=[scope])
        return ExportTraceServiceRequest(resource_spans=[resource]).SerializeToString()

    def _metrics(self, count: int, now: int) -> bytes:
        """Return `count` data points: request durations, query counts and memory, for each page and site."""
        self._started = self._started or now
        scope = metrics.ScopeMetrics(scope=SCOPE)
        for index in range(count):
            row, column = divmod(index, len(METRICS))
            site, page = divmod(row, len(PAGES))
            if len(scope.metrics) <= column:
                scope.metrics.add(name=METRICS[column])
            self._add_point(scope.metrics[column], PAGES[page].route, f"site-{site + 1}.example", now)
        resource = metrics.ResourceMetrics(resource=self._resource, scope_metrics=[scope])
        return ExportMetricsServiceRequest(resource_metrics=[resource]).SerializeToString()

    def _logs(self, count: int, now: int) -> bytes:
        """Return `count` log records."""
        scope = logs.ScopeLogs(scope=SCOPE, log_records=[self._record(now) for _ in range(count)])
        resource = logs.ResourceLogs(resource=self._resource, scope_logs=[scope])
        return ExportLogsServiceRequest(resource_logs=[resource]).SerializeToString()

    def _page(self, now: int) -> list[trace.Span]:
        """Return the spans of one page request: the request, bootstrap, template, and the operations in them."""
        chance = self._chance
        page = self._some_page()
        failed = chance.random() < self.errors
        duration = max(int(chance.lognormvariate(5.3, 0.5) * MS), 20 * MS)
        start = now - duration
        outside = trace.Span(trace_id=chance.randbytes(16))
        root = self._span(outside, f"GET {page.route}", trace.Span.SPAN_KIND_SERVER, start, now)
        root.attributes.extend(
            _attributes(
                {
                    "http.request.method": "GET",
                    "http.route": page.route,
                    "url.scheme": "https",
                    "url.path": page.path,
                    "server.address": "shop.example",
                    "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/131.0",
                    "http.response.status_code": 500 if failed else 200,
                }
            )
        )
        spans = [root]
        turn = start + duration * 2 // 5
        stages = []
        if self.spans_per_trace >= 4:  # noqa: PLR2004 - a request, two stages and one operation
            bootstrap = self._span(root, "wp.bootstrap", trace.Span.SPAN_KIND_INTERNAL, start, turn)
            template = self._span(root, "wp.template", trace.Span.SPAN_KIND_INTERNAL, turn, now)
            template.attributes.extend(_attributes({"wp.template": page.template or "none"}))
            stages = [bootstrap, template]
            spans += stages
        left = self.spans_per_trace - len(spans)
        shares = (left // 2, left - left // 2) if stages else (left,)
        for parent, share in zip(stages or [root], shares, strict=True):
            spans += self._work_of(parent, share)
        if failed:
            self._fail(root, spans[-1])
        return spans

    def _work_of(self, parent: trace.Span, count: int) -> list[trace.Span]:
        """Return `count` consecutive spans within `parent`."""
        if not count:
            return []
        begin, end = parent.start_time_unix_nano, parent.end_time_unix_nano
        slot = max((end - begin) // count, 1)
        spans = []
        for index in range(count):
            work = WORK[self._chance.randrange(len(WORK))]
            start = begin + index * slot
            took = int(self._chance.lognormvariate(0, 0.4) * work.ms * MS)
            span = self._span(parent, work.name, work.kind, start, min(start + took, start + slot))
            span.attributes.extend(work.attributes)
            spans.append(span)
        return spans

    def _span(
        self, parent: trace.Span, name: str, kind: trace.Span.SpanKind.ValueType, start: int, end: int
    ) -> trace.Span:
        """Return a span of the same trace, below `parent`."""
        return trace.Span(
            trace_id=parent.trace_id,
            span_id=self._chance.randbytes(8),
            parent_span_id=parent.span_id,
            flags=0x101,  # sampled; the parent is known not to be remote
            name=name,
            kind=kind,
            start_time_unix_nano=start,
            end_time_unix_nano=end,
        )

    @staticmethod
    def _fail(root: trace.Span, culprit: trace.Span) -> None:
        """Add an exception to the span `culprit`, and mark it and the request `root` as failed."""
        for span in (culprit,) if culprit is root else (culprit, root):
            span.status.code = trace.Status.STATUS_CODE_ERROR
            span.attributes.extend(_attributes({"error.type": "mysqli_sql_exception"}))
        culprit.status.message = "Lock wait timeout exceeded"
        culprit.events.add(
            name="exception",
            time_unix_nano=culprit.end_time_unix_nano,
            attributes=_attributes(
                {
                    "exception.type": "mysqli_sql_exception",
                    "exception.message": "Lock wait timeout exceeded; try restarting transaction",
                }
            ),
        )

    def _add_point(self, metric: metrics.Metric, route: str, site: str, now: int) -> None:
        attributes = _where(route, site)
        if metric.name == METRICS[0]:
            metric.unit, metric.description = "s", "Time that page requests take"
            metric.histogram.aggregation_temporality = metrics.AGGREGATION_TEMPORALITY_CUMULATIVE
            metric.histogram.data_points.append(self._duration(route, site, now))
        elif metric.name == METRICS[1]:
            metric.unit, metric.description = "{query}", "Database queries made"
            metric.sum.aggregation_temporality = metrics.AGGREGATION_TEMPORALITY_CUMULATIVE
            metric.sum.is_monotonic = True
            self._queries[route, site] = self._queries.get((route, site), 0) + self._chance.randrange(10, 80)
            metric.sum.data_points.add(
                attributes=attributes,
                start_time_unix_nano=self._started,
                time_unix_nano=now,
                as_int=self._queries[route, site],
            )
        else:
            metric.unit, metric.description = "By", "Memory that PHP uses"
            used = self._chance.randrange(24 * 2**20, 96 * 2**20)
            metric.gauge.data_points.add(attributes=attributes, time_unix_nano=now, as_int=used)

    def _duration(self, route: str, site: str, now: int) -> metrics.HistogramDataPoint:
        """Return the cumulative histogram of a page's durations, with some added since the last call."""
        point = self._durations.get((route, site))
        if point is None:
            point = metrics.HistogramDataPoint(
                attributes=_where(route, site),
                explicit_bounds=BOUNDS,
                bucket_counts=[0] * (len(BOUNDS) + 1),
            )
            self._durations[route, site] = point
        for _ in range(self._chance.randrange(1, 5)):
            seconds = self._chance.lognormvariate(-1.6, 0.5)
            point.bucket_counts[sum(bound < seconds for bound in BOUNDS)] += 1
            point.count += 1
            point.sum += seconds
        point.start_time_unix_nano, point.time_unix_nano = self._started, now
        return point

    def _record(self, now: int) -> logs.LogRecord:
        chance = self._chance
        if chance.random() < self.errors:
            severity, text, message = logs.SEVERITY_NUMBER_ERROR, "ERROR", FAILURE
        else:
            severity, text, message = MESSAGES[chance.randrange(len(MESSAGES))]
        time = now - chance.randrange(500 * MS)
        return logs.LogRecord(
            time_unix_nano=time,
            observed_time_unix_nano=now,
            severity_number=severity,
            severity_text=text,
            body=AnyValue(
                string_value=message.format(ms=chance.randrange(5, 3000), number=chance.randrange(1000, 9999))
            ),
            attributes=_attributes({"url.path": self._some_page().path, "log.iostream": "stderr"}),
            trace_id=chance.randbytes(16),
            span_id=chance.randbytes(8),
            flags=1,
        )

    def _some_page(self) -> _Page:
        return self._chance.choices(PAGES, cum_weights=VISITS)[0]


def _where(route: str, site: str) -> list[KeyValue]:
    return _attributes({"http.route": route, "server.address": site})
