"""Traces of WordPress pages as the plugin sends them, with plugins, queries and errors; always the same for a seed."""

import random
import time

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.kit.wordpress_traces import put

ROUTES = ("/", "/{postname}", "/product/{slug}", "/cart", "/wp-json/wp/v2/posts")
PLUGINS = ("woocommerce", "contact-form-7", "slow-related-posts", "seo-suite")
MS = 1_000_000


def page(number, *, site="shop.example", plugin="", error=False, route=None, name=None):
    """Return an export request with the trace of one page; `plugin` replaces the name of one of the plugins."""
    chance = random.Random(number)
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    put(group.resource.attributes, {"service.name": site, "wordpress.site.host": site})
    spans = group.scope_spans.add().spans
    trace_id = chance.randbytes(16)
    start = time.time_ns() - 2_000 * MS
    route = route or ROUTES[number % len(ROUTES)]
    root = spans.add(
        trace_id=trace_id,
        span_id=chance.randbytes(8),
        name=name or f"GET {route}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=start,
    )
    put(
        root.attributes,
        {
            "http.route": route,
            "url.path": route.replace("{postname}", "hello-world").replace("{slug}", "mug"),
            "http.request.method": "GET",
            "http.response.status_code": 500 if error else 200,
        },
    )
    at = start + 4 * MS
    for index, owner in enumerate(PLUGINS):
        each = plugin if plugin and index == 1 else owner
        length = int(chance.uniform(2, 18) * MS * (6 if owner == "slow-related-posts" else 1))
        hook = add(spans, root, chance, "hook the_content", at, length, {"wordpress.plugin": each})
        query = int(length * 0.4)
        add(
            spans,
            hook,
            chance,
            "SELECT wp_posts",
            at + MS,
            query,
            {
                "wordpress.plugin": each,
                "db.system.name": "mysql",
                "db.query.text": "SELECT * FROM wp_posts WHERE ID = ?",
            },
        )
        at += length + MS
    if error:
        root.status.code = Status.STATUS_CODE_ERROR
        root.status.message = "Uncaught TypeError in class-cart.php"
    root.end_time_unix_nano = at + 3 * MS
    return request


def add(spans, parent, chance, name, start, length, attributes):  # noqa: PLR0917
    """Add a child of `parent`, and return it."""
    span = spans.add(
        trace_id=parent.trace_id,
        span_id=chance.randbytes(8),
        parent_span_id=parent.span_id,
        name=name,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=start,
        end_time_unix_nano=start + length,
    )
    put(span.attributes, attributes)
    return span
