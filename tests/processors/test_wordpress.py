import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pydantic import ValidationError

from otelwp_agent.errors import MalformedError, Overloaded
from otelwp_agent.model import projections
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.wordpress import Config
from tests.kit.stages import batch_of, build
from tests.kit.wordpress_traces import DATA, MS, Trace, load, run, values

FOUNDING = Origin("jaeger_json", "http", headers={"user-agent": "WordPress/6.1.9; http://127.0.0.1:8980/blog"})
LOGGED_IN = ("013-admin-options", "015-rest-posts", "025-canonical-redirect")


def draw(request):
    """Return a request as a person would read it, for the golden files."""
    lines = []
    for group in request.resource_spans:
        lines += [f"{key}: {value}" for key, value in values(group.resource.attributes).items()]
        for scoped in group.scope_spans:
            for span in scoped.spans:
                lines += ["", f"{span.name} ({Span.SpanKind.Name(span.kind).removeprefix('SPAN_KIND_').lower()})"]
                lines += [f"  {key}: {value}" for key, value in values(span.attributes).items()]
                for event in span.events:
                    lines.append(f"  ! {event.name}")
                    lines += [f"    {key}: {value}" for key, value in values(event.attributes).items()]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "name",
    [
        "auto-wordpress-404.json",
        "auto-wordpress-front.pb",
        "auto-wordpress-login.pb",
        "auto-wordpress-post.json",
        "auto-wordpress-redirect.json",
        "auto-wordpress-rest.json",
    ],
)
def test_what_real_sites_sent(name):
    drawn = draw(run(load(name), {"n_plus_one": 3, "slow_query": "1ms"})[0])
    golden = DATA / "wordpress" / f"{name.partition('.')[0]}.txt"
    assert drawn == golden.read_text("utf-8"), "write the file anew if this is what should come out"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("001-front", "GET front"),
        ("003-page", "GET page"),
        ("005-search", "GET search"),
        ("009-login-ok", "POST login"),
        ("011-wp-cron-loopback", "POST cron"),
        ("013-admin-options", "GET admin options-general.php"),
        ("015-rest-posts", "GET rest /wp/v2/posts"),
        ("021-xmlrpc-get", "GET xmlrpc"),
        ("025-canonical-redirect", "GET single"),
        ("103-fsockopen-404", "GET 404"),
    ],
)
def test_the_founding_plugins_requests_get_names(name, expected):
    request, _ = run(load(f"jaeger/{name}.json"), origin=FOUNDING)
    group = request.resource_spans[0]
    (span,) = group.scope_spans[0].spans
    attributes = values(span.attributes)
    assert span.name == expected
    assert attributes["http.route"] == expected.partition(" ")[2]
    assert "wp.user_id" not in attributes
    assert attributes["wordpress.user.logged_in"] == str(name in LOGGED_IN)
    assert values(group.resource.attributes)["wordpress.site.host"] == "127.0.0.1:8980"


def test_what_needs_nothing_passes_byte_for_byte():
    trace = Trace()
    trace.span(1, attributes={"http.route": "front", "my.own": "x"}, kind=2)
    trace.span(2, 1, {"code.file.path": "wp-includes/a.php"}).events.add(name="e")
    trace.span(3, 1, {"db.query.text": "SELECT * FROM wp_posts WHERE ID IN (?)"}, kind=3)
    body = trace.request.SerializeToString() + b"\xfa\x3f\x01x"  # and a field that nobody knows
    stage, catcher = build("wordpress")
    batch = batch_of(body, 3)
    stage.consume(batch)
    assert catcher.batches == [batch]


def test_only_the_span_that_needs_it_is_changed():
    trace = Trace()
    trace.span(1, attributes={"my.own": "x"})
    trace.span(2, 1, {"user.email": "a@b.example"})
    before = [each.SerializeToString() for each in trace.spans.spans]
    after = [each.SerializeToString() for each in trace.spans_after()]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_unknown_fields_survive_a_change():
    trace = Trace()
    span = trace.span(1, attributes={"user.email": "a@b.example"})
    span.links.add(trace_id=b"l" * 16)
    span.dropped_events_count = 3
    span.trace_state = "ot=th:8"
    (after,) = trace.spans_after()
    span.ClearField("attributes")
    assert after == span


def test_names_that_were_chosen_with_care_stay():
    for name, scope, attributes in (
        ("checkout", "otelwp", {"url.path": "/"}),
        ("GET /index.php", "otelwp", {"url.path": "/", "http.route": "mine"}),
        ("GET /index.php", "express", {"url.path": "/"}),
    ):
        trace = Trace(scope=scope)
        trace.span(1, attributes=attributes, name=name)
        assert trace.spans_after()[0].name == name
    trace = Trace(scope="otelwp")
    trace.span(1, attributes={"url.path": "/", "http.request.method": "GET"}, name="GET /index.php")
    assert trace.spans_after({"routes": False})[0].name == "GET /index.php"
    assert trace.spans_after()[0].name == "GET front"


def test_a_span_with_a_remote_parent_is_a_request_and_one_with_a_local_parent_is_not():
    trace = Trace(scope="wordpress")
    for number, flags in ((1, 0x300), (2, 0x100), (3, 0), (4, 0x200)):
        trace.span(number, 9, {"url.path": "/"}, name="GET /index.php", flags=flags)
    assert [each.name for each in trace.spans_after()] == ["front", *["GET /index.php"] * 3]


def test_inner_spans_are_no_servers():
    trace = Trace()
    trace.span(1, name="WP.main", kind=2)
    trace.span(2, 1, name="WP.init", kind=2, flags=0x100)
    trace.span(3, 1, name="WP.init", kind=2, flags=0x300)
    trace.span(4, 1, name="other", kind=2)
    trace.span(5, 1, name="WP.query", kind=3)
    assert [each.kind for each in trace.spans_after()] == [2, 1, 2, 2, 3]


def test_repeated_and_slow_queries_are_reported_on_the_request():
    trace = Trace()
    trace.span(1)
    for number in range(3):
        trace.span(10 + number, 1, {"db.query.text": f"SELECT a WHERE id = {number}"})
    trace.span(20, 1, {"db.query.text": "SELECT slow"}, end_time_unix_nano=200 * MS)
    root = trace.spans_after({"n_plus_one": 3})[0]
    slow, repeated = root.events
    assert (slow.name, values(slow.attributes)["db.query.text"]) == ("wordpress.db.slow_query", "SELECT slow")
    assert values(repeated.attributes) == {
        "db.query.text": "SELECT a WHERE id = ?",
        "wordpress.db.duration_ms": "3.0",
        "wordpress.db.query_count": "3",
    }
    for finding in ("n_plus_one", "slow_query"):
        assert trace.stage.context.registry.value("otelwp_processor_wordpress_findings", finding=finding) == 1
    assert not trace.spans_after({"n_plus_one": 4, "slow_query": "1s"})[0].events
    assert not trace.spans_after({"n_plus_one": 0, "slow_query": 0})[0].events


def test_without_the_request_findings_are_on_the_parent_or_dropped():
    for parent, events in ((5, 1), (6, 0)):
        trace = Trace()
        trace.span(5, 99)
        for number in range(3):
            trace.span(10 + number, parent, {"db.query.text": "SELECT a"})
        assert len(trace.spans_after({"n_plus_one": 3})[0].events) == events


def test_findings_of_the_sender_are_kept():
    trace = Trace()
    trace.span(1).events.add(name="wordpress.db.n_plus_one")
    for number in range(3):
        trace.span(10 + number, 1, {"db.query.text": "SELECT a"}, end_time_unix_nano=200 * MS)
    names = [each.name for each in trace.spans_after({"n_plus_one": 3})[0].events]
    assert names == ["wordpress.db.n_plus_one", *["wordpress.db.slow_query"] * 3]


def test_sites_of_a_network_get_names_of_their_own():
    def after(resource, site=None, settings=None, origin=None):
        trace = Trace(resource)
        trace.span(1, attributes={"wordpress.site.id": site} if site else {})
        return trace.resource_after(settings, origin)

    assert after({"service.name": "shop", "wordpress.site.id": 3})["service.name"] == "shop-site-3"
    assert after({"service.name": "shop-site-3", "wordpress.site.id": 3})["service.name"] == "shop-site-3"
    assert after({"service.name": "shop", "wordpress.site.id": 1})["service.name"] == "shop", "the first is the shop"
    found = after({"service.name": "shop"}, site=4)
    assert found == {"service.name": "shop-site-4", "wordpress.site.id": "4"}
    assert (
        after({"service.name": "shop"}, site=4, settings={"multisite": {"suffix": "/{id}"}})["service.name"] == "shop/4"
    )
    assert after({"service.name": "shop"}, site=4, settings={"multisite": {"suffix": ""}})["service.name"] == "shop"
    assert after({"service.name": "shop"}, site=4, settings={"multisite": {"enabled": False}}) == {
        "service.name": "shop"
    }
    assert (
        after({"service.name": "a/b", "wordpress.site.id": 3, "telemetry.sdk.name": "otelwp"})["service.name"] == "a/b"
    )
    assert after({"service.name": "shop"}, origin=FOUNDING)["wordpress.site.host"] == "127.0.0.1:8980"
    assert after({"x": "y"}, site=4) == {"x": "y", "wordpress.site.id": "4"}


def test_two_sites_under_one_resource_are_not_made_one():
    trace = Trace()
    trace.span(1, attributes={"blog_id": 3})
    trace.span(2, attributes={"blog_id": 4})
    assert trace.resource_after() == {"service.name": "shop"}


@pytest.mark.parametrize("site", ["x", "-1", "9" * 30, "٣"])
def test_an_invalid_site_id_is_ignored(site):
    trace = Trace()
    trace.span(1, attributes={"blog_id": site})
    assert trace.resource_after() == {"service.name": "shop"}


def test_one_processor_serves_many_pages():
    stage, catcher = build("wordpress")
    bodies = [load("auto-wordpress-rest.json"), load("auto-wordpress-login.pb")]
    for _ in range(3):
        for body in bodies:
            stage.consume(batch_of(body, projections.count(Signal.TRACES, body)))
    assert len({batch.body for batch in catcher.batches}) == 2, "what is remembered gives the same again"


def test_a_refusal_goes_back_and_nothing_is_settled():
    stage, catcher = build("wordpress")
    catcher.error = Overloaded("no room")
    batch = batch_of(load("auto-wordpress-rest.json"), 28)
    with pytest.raises(Overloaded):
        stage.consume(batch)
    assert batch.shares[0][0].pending == 28


def test_broken_bytes_are_refused():
    stage, _ = build("wordpress")
    trace = Trace()
    trace.span(1)
    body = trace.request.SerializeToString().replace(b"t" * 16, b"\xff" * 16)[:-3]
    with pytest.raises(MalformedError):
        stage.consume(batch_of(body, 1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"redact": {"mode": "hash"}}, "needs a `hash_key`"),
        ({"redact": {"mode": "hash", "hash_key": ""}}, "needs a `hash_key`"),
        ({"multisite": {"suffix": "-x"}}, "the same for every site"),
        ({"n_plus_one": -1}, "greater than or equal to 0"),
        ({"slow_query": "-1s"}, "greater than or equal to 0"),
    ],
)
def test_refused_settings(settings, words):
    with pytest.raises(ValidationError, match=words):
        Config.model_validate(settings)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_broken_attributes_and_events_stay_as_they_are(attribute, event):
    def field(tag, data):
        return tag + bytes([len(data)]) + data

    span = b"".join((field(b"\x4a", attribute), field(b"\x5a", event + b"@"), field(b"\x7a", event + b"@")))
    body = field(b"\x0a", field(b"\x12", field(b"\x12", span))) if len(span) < 100 else b""
    stage, catcher = build("wordpress")
    stage.consume(batch_of(body, 1))
    assert len(catcher.batches) == 1
