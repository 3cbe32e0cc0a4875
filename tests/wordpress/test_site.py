"""The plugin on a real WordPress: the trace of each kind of request, and what stays private."""

import json
import re
import socket
import time

import pytest

from tests.interop.wordpress import USER
from tests.wordpress.kit import CLIENT, FRONT, INTERNAL, PATIENCE, SERVER, assert_private, attributes

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(
    ("path", "status", "name", "phases"),
    [
        ("/", 200, "GET front", FRONT),
        ("/hello-world/", 200, "GET single", FRONT),
        ("/sample-page/", 200, "GET page", FRONT),
        ("/no-such-page/", 404, "GET 404", FRONT),
        ("/?s=secret", 200, "GET search", FRONT),
        ("/feed/", 200, "GET feed", FRONT),
        ("/category/uncategorized/", 200, "GET category", FRONT),
        ("/author/admin/", 200, "GET author", FRONT),
        ("/?p=1", 301, "GET single", FRONT),
        ("/hello-wor/", 301, "GET redirect", FRONT),
        ("/?case=early", 200, "GET early exit", None),
        ("/?case=sitemap", 200, "GET sitemap", None),
        ("/wp-login.php", 200, "GET login", ["bootstrap", "plugins", "init", "login", "shutdown"]),
        (
            "/wp-json/wp/v2/posts",
            200,
            "GET rest /wp/v2/posts",
            ["bootstrap", "plugins", "init", "query", "rest", "shutdown"],
        ),
        ("/wp-json/wp/v2/posts/1", 200, "GET rest /wp/v2/posts/{id}", None),
        ("/wp-json/wp/v2/users/me", 401, "GET rest /wp/v2/users/me", None),
        ("/wp-json/wp/v2/settings", 401, "GET rest /wp/v2/settings", None),
        ("/wp-json/no/such/route", 404, "GET rest", None),
        ("/wp-cron.php?doing_wp_cron", 200, "GET cron", ["bootstrap", "plugins", "init", "cron", "shutdown"]),
        ("/xmlrpc.php", 405, "GET xmlrpc", ["bootstrap", "plugins", "init", "xmlrpc", "shutdown"]),
        (
            "/wp-admin/admin-ajax.php?action=secret",
            400,
            "GET ajax",
            ["bootstrap", "plugins", "init", "ajax", "shutdown"],
        ),
        ("/wp-admin/admin-ajax.php?action=heartbeat", 200, "GET ajax heartbeat", None),
        ("/wp-admin/", 302, "GET admin index.php", ["bootstrap", "plugins", "init", "admin", "shutdown"]),
    ],
)
def test_a_request(site, path, status, name, phases):
    trace = site.trace(path, status=status)
    root, found = trace.root, attributes(trace.root)
    assert (root.name, root.kind, root.parent_span_id) == (name, SERVER, b"")
    assert found["http.response.status_code"] == status
    assert found["http.request.method"] == "GET"
    assert found["http.route"] == name.removeprefix("GET ")
    assert found["url.path"] == path.partition("?")[0]
    assert phases is None or trace.phases == phases
    assert trace.resource["service.name"] == "shop"
    assert trace.resource["deployment.environment.name"] == "staging"
    ids = {span.span_id for span in trace.spans}
    assert len(ids) == len(trace.spans)
    for span in trace.spans[1:]:
        assert span.trace_id == root.trace_id
        assert span.parent_span_id in ids
        parent = trace.parent(span)
        assert parent.start_time_unix_nano <= span.start_time_unix_nano + 1000
        assert span.end_time_unix_nano <= parent.end_time_unix_nano + 1000
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    in_phases = sum(
        attributes(span)["wordpress.db.query_count"] for span in trace.spans[1:] if span.name in trace.phases
    )
    assert in_phases == found["wordpress.db.query_count"] > 0
    assert abs(root.end_time_unix_nano / 1e9 - time.time()) < PATIENCE


def test_a_comment(site):
    fields = {"comment_post_ID": "1", "author": "jane", "email": "jane@example.org", "comment": "illness"}
    assert site.trace("/wp-comments-post.php", fields, status=302).root.name == "POST comment"


def test_requests_of_somebody_who_is_logged_in(site):
    dashboard = site.trace("/wp-admin/edit.php", logged_in=True)
    assert dashboard.root.name == "GET admin edit.php"
    tool = site.trace("/wp-admin/tools.php?page=redirection.php", logged_in=True)
    assert tool.root.name == "GET admin tools.php redirection.php"
    assert attributes(dashboard.root)["wordpress.user.logged_in"] is True
    page = site.trace("/wp-admin/options-general.php?page=otelwp", logged_in=True)
    assert page.root.name == "GET admin options-general.php otelwp"
    login = site.trace("/wp-login.php", {"log": USER, "pwd": "secret", "testcookie": "1"})
    assert login.root.name == "POST login"


def test_methods_are_few(site):
    assert site.trace("/", {"a": "secret"}).root.name == "POST front"


@pytest.mark.parametrize(
    ("case", "type_", "message"),
    [
        ("fatal", "Error", "Call to undefined function otelwp_no_such_function()"),
        ("exception", "DomainException", "No mail to [email] about x"),
        ("memory", "E_ERROR", "Allowed memory size of"),
    ],
)
def test_what_ends_a_request(site, case, type_, message):
    trace = site.trace(f"/?case={case}", status=500)
    assert (trace.root.status.code, trace.root.status.message[: len(message)]) == (2, message)
    assert attributes(trace.root)["error.type"] == type_
    (event,) = trace.root.events
    found = attributes(event)
    assert (event.name, found["exception.type"]) == ("exception", type_)
    assert found["exception.message"].startswith(message)
    assert found["code.file.path"] == "wp-content/mu-plugins/cases.php"
    assert found["wordpress.plugin"] == "cases"
    assert b"secret" not in trace.body


@pytest.mark.parametrize(
    ("case", "type_", "message"),
    [
        ("caused", "LogicException", "the effect"),
        ("anonymous", "RuntimeException@anonymous", "nobody"),
    ],
)
def test_the_exception_that_ended_a_request(site, case, type_, message):
    """Not its cause."""
    trace = site.trace(f"/?case={case}", status=500)
    (event,) = trace.root.events
    found = attributes(event)
    assert (found["exception.type"], found["exception.message"]) == (type_, message)
    assert attributes(trace.root)["error.type"] == type_


def test_pages_of_wp_die(site):
    trace = site.trace("/?case=die", status=503)
    (event,) = trace.root.events
    found = attributes(event)
    assert found["error.type"] == "wp_die"
    assert found["exception.message"] == "Not today"
    assert found["http.response.status_code"] == 503
    assert found["wordpress.plugin"] == "cases"
    assert (trace.root.status.code, trace.root.status.message) == (2, "Not today")
    trace = site.trace("/?case=forbidden", status=403)
    assert attributes(trace.root.events[0])["error.type"] == "no_entry"
    assert trace.root.status.code == 0, "it is the client's fault"


def test_exit_is_no_error(site):
    trace = site.trace("/?case=exit")
    assert (trace.root.status.code, list(trace.root.events)) == (0, [])


def test_requests_to_others(site, other):
    trace = site.trace(f"/?case=http&to={other.url}")
    calls = [span for span in trace.spans if span.kind == CLIENT and "url.scheme" in attributes(span)]
    assert [span.name for span in calls] == [
        "GET 127.0.0.1",
        "POST 127.0.0.1",
        *["GET 127.0.0.1"] * 3,
        "GET cached.example",
    ]
    first, late, _own, broken, refused, cached = calls
    found = attributes(first)
    assert (found["http.response.status_code"], found["server.port"]) == (200, other.server_address[1])
    assert attributes(late)["wordpress.http.blocking"] is False
    assert (broken.status.code, attributes(broken)["error.type"]) == (2, "500")
    assert (refused.status.code, attributes(refused)["error.type"]) == (2, "http_request_failed")
    assert attributes(cached)["wordpress.http.short_circuit"] is True
    assert trace.parent(first).name == "template"
    assert b"secret" not in trace.body, "a path or a query may be the key to a web hook"

    headers = {path.partition("?")[0]: headers for _, path, headers, _ in other.seen}
    id_ = trace.root.trace_id.hex()
    assert headers["/hook/secret"]["traceparent"] == f"00-{id_}-{first.span_id.hex()}-01"
    assert headers["/hook/secret"]["tracestate"] == "ot=th:0"
    assert headers["/late"]["traceparent"] == f"00-{id_}-{late.span_id.hex()}-01"
    assert (headers["/late"]["x-own"], headers["/late"]["x-two"]) == ("1", "2")
    assert headers["/own"]["traceparent"] == "mine"


def test_a_request_whose_address_wordpress_rewrites_ends(site, other):
    trace = site.trace(f"/?case=rewritten&to={other.url}")
    first, second = (span for span in trace.spans if span.kind == CLIENT and "url.scheme" in attributes(span))
    assert attributes(first)["http.response.status_code"] == 200
    assert first.end_time_unix_nano < second.start_time_unix_nano


def test_a_request_that_is_not_recorded_says_so_to_others(site, other):
    caller = f"00-{'c' * 32}-{'d' * 16}-00"
    site.nothing(f"/?case=http&to={other.url}", headers={"traceparent": caller, "tracestate": "x=1"})
    _, _, headers, _ = other.seen[0]
    assert re.fullmatch(rf"00-{'c' * 32}-[0-9a-f]{{16}}-00", headers["traceparent"])
    assert headers["tracestate"] == "x=1"
    other.seen.clear()
    with site.changed(propagate="none"):
        site.trace(f"/?case=http&to={other.url}")
    assert "traceparent" not in other.seen[0][2]


def test_a_caller_is_continued(site):
    caller = {"traceparent": f"00-{'e' * 32}-{'f' * 16}-01", "tracestate": "rojo=1,ot=th:8;rv:ffffffffffffff"}
    trace = site.trace("/", headers=caller)
    assert (trace.root.trace_id.hex(), trace.root.parent_span_id.hex()) == ("e" * 32, "f" * 16)
    assert trace.root.flags == 0x301
    assert trace.root.trace_state == "ot=th:8;rv:ffffffffffffff,rojo=1"


def test_mail(site):
    trace = site.trace("/?case=mail")
    taken, refused = trace.named("wp_mail")
    assert taken.status.code == 0
    assert (refused.status.code, attributes(refused)["error.type"]) == (2, "wp_mail_failed")
    assert b"jane" not in trace.body


def test_rest_requests_within_a_page(site):
    with site.changed(slowest_queries=50):
        trace = site.trace("/?case=rest")
    (found,) = trace.named("GET rest /wp/v2/posts")
    (missing,) = trace.named("GET rest /wp/v2/posts/{id}")
    assert trace.parent(found).name == "template"
    assert [trace.parent(span) for span in trace.spans if span.parent_span_id == found.span_id]
    assert attributes(missing)["error.type"] == "rest_post_invalid_id"
    assert trace.root.name == "GET front"


def test_a_slow_part_of_a_template(site):
    (part,) = site.trace("/?case=part").named("template slow-part.php")
    assert part.end_time_unix_nano - part.start_time_unix_nano >= 5e6


def test_a_checkout(site):
    trace = site.trace("/?case=checkout")
    (checkout,), (payment,) = trace.named("woocommerce checkout"), trace.named("woocommerce payment")
    assert trace.parent(payment) == checkout
    assert attributes(payment) == {"woocommerce.payment_method": "cheque"}
    names = [event.name for event in payment.events]
    assert names == ["woocommerce.payment_complete", "woocommerce.order_status_changed"]
    trace = site.trace("/?case=declined")
    (payment,) = trace.named("woocommerce payment")
    assert (payment.status.code, payment.status.message) == (2, "payment failed")
    assert b"jane" not in trace.body


def test_bytes_that_are_no_text(site):
    trace = site.trace("/?case=bytes", headers={"User-Agent": "caf\xe9"})
    (phase,) = trace.named("template")
    assert attributes(phase.events[0])["woocommerce.order.status.from"] == "caf�"


def test_cron_hooks(site):
    site.ask("return wp_schedule_single_event(time() - 1, 'cases_cron');")
    trace = site.trace("/wp-cron.php?doing_wp_cron")
    (hook,) = trace.named("cron cases_cron")
    assert trace.parent(hook).name == "cron"
    assert hook.end_time_unix_nano - hook.start_time_unix_nano >= 2e6
    assert attributes(hook)["wordpress.cron.hook"] == "cases_cron"


def test_the_command_line(site):
    site.settle()
    site.wordpress.php("echo 'x';")
    (trace,) = site.listener.wait()
    assert (trace.root.name, trace.root.kind) == ("cli", INTERNAL)
    assert "http.request.method" not in attributes(trace.root)


def test_what_is_not_sampled_is_not_sent_unless_it_fails(site):
    with site.changed(sampling_rate=0):
        site.nothing("/")
        trace = site.trace("/?case=fatal", status=500)
    assert (trace.root.name, len(trace.spans), trace.root.trace_state) == ("GET front", 1, "")
    assert attributes(trace.root)["otelwp.kept_because"] == "error"
    assert trace.root.events[0].name == "exception"
    with site.changed(sampling_rate=0, keep_errors=False):
        site.nothing("/?case=fatal")


def test_callers_need_not_be_followed(site):
    """Then the trace id decides, whatever the caller has decided."""
    with site.changed(sampling_rate=0.5, follow_parent=False):
        kept = site.trace("/", headers={"traceparent": f"00-{'f' * 32}-{'1' * 16}-00"})
        site.wordpress.visit("/", headers={"traceparent": f"00-{'1' * 32}-{'1' * 16}-01"})
    assert (kept.root.trace_id.hex(), kept.root.trace_state) == ("f" * 32, "ot=th:8")
    site.after_marker()


def test_it_can_be_switched_off(site):
    with site.changed(enabled=False):
        site.wordpress.visit("/?case=fatal")
    site.after_marker()


def test_server_timing(site):
    assert "Server-Timing" not in site.wordpress.visit("/").headers
    with site.changed(server_timing=True):
        answer = site.wordpress.visit("/")
        (trace,) = site.listener.wait()
    traceparent, *phases = answer.headers["Server-Timing"].split(", ")
    id_, span = trace.root.trace_id.hex(), trace.root.span_id.hex()
    assert traceparent == f'traceparent;desc="00-{id_}-{span}-01"'
    assert [phase.partition(";dur=")[0] for phase in phases] == ["bootstrap", "plugins", "init"]


def test_a_query_string_is_reported_on_request_alone(site):
    assert "url.query" not in attributes(site.trace("/?s=secret&page=2").root)
    with site.changed(query_string=True):
        found = attributes(site.trace("/?s=secret&orderby=date").root)
    assert found["url.query"] == "s=REDACTED&orderby=date"


SHOW = """<?php
if (isset($_GET['failing'])) {
    add_action('init', function () { wp_send_json((new Otelwp\\Breaker())->failing()); });
}
"""


def test_an_agent_that_went_away_is_left_alone(site):
    gone = f"unix://{site.wordpress.folder}/gone.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(gone.removeprefix("unix://"))
    site.wordpress.add_must_use("show.php", SHOW)
    with site.changed(endpoints=[gone, site.listener.url]):
        site.trace("/")
        failing = json.loads(site.wordpress.visit("/?failing").text)
    assert failing[gone]["why"] == "connection refused"
    assert time.time() < failing[gone]["until"] <= time.time() + 60


def test_nothing_private_was_ever_sent(site):
    """Check what the tests above made the plugin send; the fixture does so after each file."""
    assert len(site.listener.bodies) > 40
    assert_private(site)
