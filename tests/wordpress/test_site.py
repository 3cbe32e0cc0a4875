"""The plugin on a real WordPress: what a request becomes, what stays private, and what administrators see and do."""

import json
import re
import shutil
import socket
import threading
import time

import pytest

from tests.interop.wordpress import PASSWORD, USER
from tests.kit.agent import Agent, free_port, post
from tests.kit.traffic import traffic
from tests.wordpress.conftest import ROOT
from tests.wordpress.kit import CLIENT, INTERNAL, PATIENCE, SERVER, SETTINGS, attributes, beat, form

pytestmark = pytest.mark.interop

LOADER = ROOT / "examples/wordpress/mu-plugins/otelwp-loader.php"
FRONT = ["bootstrap", "plugins", "init", "query", "template", "shutdown"]


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


def test_requests_of_somebody_who_is_logged_in(site):
    dashboard = site.trace("/wp-admin/edit.php", logged_in=True)
    assert dashboard.root.name == "GET admin edit.php"
    assert attributes(dashboard.root)["wordpress.user.logged_in"] is True
    page = site.trace("/wp-admin/options-general.php?page=otelwp", logged_in=True)
    assert page.root.name == "GET admin options-general.php otelwp"
    login = site.trace("/wp-login.php", {"log": USER, "pwd": "secret", "testcookie": "1"})
    assert login.root.name == "POST login"


def test_methods_are_few(site):
    assert site.trace("/", {"a": "secret"}).root.name == "POST front"


def test_a_page_costs_no_query_more(site):
    for page in ("/", "/hello-world/", "/wp-json/wp/v2/posts"):
        site.wordpress.visit(page)
        recorded = attributes(site.trace(page).root)["wordpress.db.query_count"]
        site.wordpress.add_must_use(
            "count.php",
            "<?php register_shutdown_function(function () { file_put_contents('"
            + str(site.wordpress.folder / "count")
            + "', $GLOBALS['wpdb']->num_queries); });",
        )
        site.wordpress.deactivate("otelwp")
        site.wordpress.visit(page)
        site.wordpress.visit(page)
        counted = int((site.wordpress.folder / "count").read_text())
        site.wordpress.activate("otelwp")
        (site.wordpress.site / "wp-content/mu-plugins/count.php").unlink()
        assert recorded == counted


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
    assert attributes(event) == {
        "error.type": "wp_die",
        "exception.message": "Not today",
        "http.response.status_code": 503,
    }
    assert (trace.root.status.code, trace.root.status.message) == (2, "Not today")
    trace = site.trace("/?case=forbidden", status=403)
    assert attributes(trace.root.events[0])["error.type"] == "no_entry"
    assert trace.root.status.code == 0, "it is the client's fault"


def test_exit_is_no_error(site):
    trace = site.trace("/?case=exit")
    assert (trace.root.status.code, list(trace.root.events)) == (0, [])


def test_queries(site):
    trace = site.trace("/?case=slow")
    (slow,) = [span for span in trace.spans if span.events]
    found = attributes(slow)
    assert (slow.kind, slow.name, found["db.query.text"]) == (CLIENT, "SELECT", "SELECT SLEEP(?)")
    assert trace.parent(slow).name == "template"
    assert 80e6 <= slow.end_time_unix_nano - slow.start_time_unix_nano < 1e9
    assert slow.events[0].name == "wordpress.db.slow_query"
    assert found["db.system.name"] == "mariadb"

    trace = site.trace("/?case=failing")
    (failed,) = [span for span in trace.spans if span.status.code == 2]
    assert (failed.name, failed.status.message) == ("SELECT no_such_table", "Table '?' doesn't exist")
    assert attributes(failed)["db.query.text"] == "SELECT ? FROM no_such_table"
    assert b"secret" not in trace.body


def test_queries_say_who_asked(site):
    trace = site.trace("/hello-world/")
    callers = {attributes(span).get("code.function.name") for span in trace.spans if span.kind == CLIENT}
    assert {"get_option", "WP_Query->get_posts"} <= callers


def test_the_database_is_the_same_to_everybody(site):
    """A recorded page may have another class of it, but never two objects."""
    assert site.wordpress.visit("/?case=wpdb").text == '["Otelwp\\\\Collect\\\\Wpdb","100% of it",true]'
    assert site.wordpress.visit("/?case=kept").text == '["wpdb","100% of it",true]'
    assert [trace.root.name for trace in site.listener.wait()]


def test_a_query_for_each_row_is_found(site):
    trace = site.trace("/?case=repeated")
    (event,) = trace.root.events
    found = attributes(event)
    assert event.name == "wordpress.db.n_plus_one"
    assert found["db.query.text"] == "SELECT meta_value FROM wp_postmeta WHERE post_id = ? AND meta_key = ?"
    assert (found["wordpress.db.query_count"], found["db.query.summary"]) == (25, "SELECT postmeta")
    assert attributes(trace.root)["wordpress.db.n_plus_one_count"] == 1


def test_thousands_of_queries_are_a_small_message(site):
    trace = site.trace("/?case=many")
    assert attributes(trace.root)["wordpress.db.query_count"] > 3000
    assert len(trace.body) < 60_000
    assert len([span for span in trace.spans if span.kind == CLIENT]) == 10


@pytest.mark.parametrize("mode", ["counted", "off"])
def test_queries_need_not_be_timed(site, mode):
    with site.changed(database=mode):
        trace = site.trace("/?case=repeated")
    assert [span for span in trace.spans if span.kind == CLIENT] == []
    assert len(trace.root.events) == (1 if mode == "counted" else 0)
    assert attributes(trace.root)["wordpress.db.query_count"] > 25


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


REPLY = {
    "status": "ok",
    "tier": "pro",
    "features": ["adaptive_sampling", "Batch!"],
    "sampling": {"rate": 0.25, "traces_per_second": 5},
    "valid_for": 600,
}


STATE = """
    return ['rate' => Otelwp\\Agent::sampling_rate(), 'tier' => Otelwp\\Agent::tier(),
            'features' => Otelwp\\Agent::features()];
"""


def test_the_heartbeat(site, agent):
    agent.answers["/v1/plugins/heartbeat"] = (200, {}, json.dumps(REPLY))
    assert site.ask(STATE) == {"rate": 1, "tier": "free", "features": []}
    assert beat(site) == "heartbeat"
    method, _, headers, body = agent.seen[0]
    report = json.loads(body)
    assert (method, headers["content-type"]) == ("POST", "application/json")
    assert {"cms", "plugin_version", "php_version", "wordpress_version", "server_info", "environment"} <= report.keys()
    assert report["service_name"] == "shop"
    assert "authorization" not in headers
    assert site.ask(STATE) == {"rate": 0.25, "tier": "pro", "features": ["adaptive_sampling", "batch"]}
    # The site's own rate is the most; what was said is forgotten when its time is over.
    with site.changed(sampling_rate=0.1):
        assert site.ask(STATE)["rate"] == 0.1
    site.ask("$s = get_option('otelwp_agent'); $s['until'] = time() - 1; return update_option('otelwp_agent', $s);")
    assert site.ask(STATE) == {"rate": 1, "tier": "free", "features": []}


def test_the_heartbeat_takes_headers(site, agent):
    headers = {"X-OTelWP-Sampling-Rate": "0.5", "X-OTelWP-Tier": "enterprise"}
    agent.answers["/v1/plugins/heartbeat"] = (200, headers, "{}")
    beat(site)
    assert site.ask(STATE) == {"rate": 0.5, "tier": "enterprise", "features": []}


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "no json",
        "[]",
        '{"tier": "gold", "features": "all", "sampling": {"rate": 7}, "toggles": []}',
        "null",
        '{"sampling": 1}',
    ],
)
def test_nonsense_changes_nothing(site, agent, reply):
    agent.answers["/v1/plugins/heartbeat"] = (200, {}, reply)
    assert beat(site) == "heartbeat"
    assert site.ask(STATE) == {"rate": 1, "tier": "free", "features": []}


def test_an_agent_without_heartbeats_is_asked_for_its_health(site, agent):
    agent.answers["/v1/plugins/heartbeat"] = (404, {}, "")
    assert beat(site) == "health"
    assert [path for _, path, _, _ in agent.seen] == ["/v1/plugins/heartbeat", "/health"]


def test_rates_as_jaegers_clients_ask_for_them(site, agent):
    agent.answers["/v1/plugins/heartbeat"] = (404, {}, "")
    probabilistic = {"strategyType": "PROBABILISTIC", "probabilisticSampling": {"samplingRate": 0.125}}
    agent.answers["/sampling"] = (200, {}, json.dumps(probabilistic))
    with site.changed(sampling_url=f"{agent.url}/sampling"):
        beat(site)
    assert agent.seen[-1][1] == "/sampling?service=shop"
    assert site.ask(STATE)["rate"] == 0.125


RATES = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}}}
processors:
  adaptive_sampling: {{target: {{traces_per_second: 1}}, always_keep: {{first_seen: {{enabled: false}}}}}}
exporters: {{debug: {{verbosity: basic}}}}
extensions: {{remote_sampling: {{endpoint: '127.0.0.1:{port}', min_rate: 0.125, settle: 10ms}}}}
service:
  extensions: [remote_sampling]
  pipelines: {{traces: {{receivers: [otlp], processors: [adaptive_sampling], exporters: [debug]}}}}
"""


def test_a_rate_from_what_our_agent_keeps(site, agent, tmp_path):
    """The sampler is over its target, so the plugin is asked for the least.

    On a busy machine a rate may be told before much has come; it must not have to settle for two minutes then.
    """
    agent.answers["/v1/plugins/heartbeat"] = (404, {}, "")
    port = free_port()
    url = f"http://127.0.0.1:{port}/sampling"
    with Agent(RATES.format(port=port), tmp_path) as ours, site.changed(sampling_url=url):
        beat(site)
        assert site.ask(STATE)["rate"] == 1
        end = time.monotonic() + PATIENCE
        while site.ask(STATE)["rate"] != 0.125:
            assert time.monotonic() < end
            for _, body, _ in traffic(5, 100):  # again each time: without traffic the rate rises
                assert post(ours.port(), "/v1/traces", body) == 200
            beat(site)


def test_an_agent_that_pauses_the_plugin(site, agent):
    agent.answers["/v1/plugins/heartbeat"] = (200, {}, json.dumps({"toggles": {"pause": True}}))
    beat(site)
    site.wordpress.visit("/")
    assert site.listener.read() == []
    site.ask("return update_option('otelwp_agent', []);")
    site.after_marker()


def test_the_budget_is_shared_by_all_processes(site, agent):
    agent.answers["/v1/plugins/heartbeat"] = (200, {}, json.dumps({"sampling": {"traces_per_second": 0.05}}))
    beat(site)
    for _ in range(6):
        site.wordpress.visit("/")
    time.sleep(0.2)  # late datagrams would be there by now
    assert len(site.listener.read()) <= 2, "one in twenty seconds, and one where a window ends"


def test_an_agent_that_does_not_answer(site, agent):
    agent.__exit__()
    try:
        assert "refused" in beat(site).lower()
        assert site.ask("return Otelwp\\Agent::state()['problem'];")
    finally:
        agent.thread = threading.Thread(target=lambda: None)
        agent.shutdown = lambda: None
        agent.thread.start()


def test_the_heartbeat_is_scheduled_once_and_ends_with_the_plugin(site):
    scheduled = "return count(array_filter(_get_cron_array(), fn($jobs) => isset($jobs['otelwp_heartbeat'])));"
    assert site.ask(scheduled) == 1
    site.wordpress.deactivate("otelwp")
    assert site.ask(scheduled) == 0
    site.wordpress.activate("otelwp")
    assert site.ask(scheduled) == 1


def test_the_settings_page(site):
    page = site.wordpress.visit(SETTINGS, logged_in=True)
    assert page.status == 200
    for label in ("Record requests", "Sampling rate", "Endpoints", "Send a test trace", "no known failure"):
        assert label in page.text
    fields = form(page.text, "options.php")
    saved = site.wordpress.visit(
        "/wp-admin/options.php",
        fields
        | {"otelwp_settings[n_plus_one]": "33", "otelwp_settings[sampling_rate]": "7", "otelwp_settings[x]": "y"},
        logged_in=True,
    )
    assert saved.status == 302
    stored = site.ask("return get_option('otelwp_settings');")
    assert (stored["n_plus_one"], stored["sampling_rate"], stored["service_name"]) == (33, 1, "shop")
    assert "x" not in stored
    again = site.wordpress.visit(f"{SETTINGS}&settings-updated=true", logged_in=True)
    assert "The sampling rate is a number from 0 (nothing) to 1 (every request)." in again.text
    site.set(n_plus_one=10)


def test_what_is_entered_is_shown_as_text(site):
    with site.changed(service_name="\"'><script>alert(1)</script>"):
        page = site.wordpress.visit(SETTINGS, logged_in=True)
    assert "<script>alert" not in page.text


def test_strangers_change_nothing(site):
    page = site.wordpress.visit(SETTINGS, logged_in=True)
    fields = form(page.text, "options.php") | {"otelwp_settings[n_plus_one]": "44"}
    assert site.wordpress.visit("/wp-admin/options.php", fields).status in (302, 403)
    forged = fields | {"_wpnonce": "0123456789"}
    assert site.wordpress.visit("/wp-admin/options.php", forged, logged_in=True).status == 403
    assert site.wordpress.visit("/wp-admin/admin-post.php", {"action": "otelwp_test"}, logged_in=True).status == 403
    assert site.wordpress.visit("/wp-json/otelwp/v1/agent").status == 401
    assert site.ask("return get_option('otelwp_settings')['n_plus_one'];") == 10


def test_the_test_trace(site):
    page = site.wordpress.visit(SETTINGS, logged_in=True)
    site.settle()
    sent = site.wordpress.visit("/wp-admin/admin-post.php", form(page.text, "admin-post.php"), logged_in=True)
    assert sent.status == 302
    (trace,) = [trace for trace in site.listener.wait() if trace.root.name == "otelwp test"]
    shown = site.wordpress.visit(f"{SETTINGS}&otelwp-test=1", logged_in=True).text
    assert trace.root.trace_id.hex() in shown
    assert "accepted it" in shown


def test_a_constant_wins_and_greys_out_its_field(site):
    site.wordpress.add_must_use("constant.php", "<?php define('OTELWP_SERVICE_NAME', 'from wp-config');")
    try:
        trace = site.trace("/")
        page = site.wordpress.visit(SETTINGS, logged_in=True).text
    finally:
        (site.wordpress.site / "wp-content/mu-plugins/constant.php").unlink()
    assert trace.resource["service.name"] == "from wp-config"
    assert re.search(r'<input type="text" id="otelwp-service_name"[^>]*disabled', page)
    assert "Set by OTELWP_SERVICE_NAME in wp-config.php." in page


def test_site_health(site, agent):
    tests = "Otelwp\\Admin\\Site_Health"
    assert site.ask(f"return {tests}::test_endpoints();")["status"] == "good"
    agent.answers["/health"] = (200, {}, '{"status": "healthy"}')
    well = site.ask(f"return {tests}::test_agent();")
    assert (well["status"], well["label"]) == ("good", "The telemetry agent is healthy")
    agent.answers["/health"] = (200, {}, '{"status": "degraded"}')
    assert site.ask(f"return {tests}::test_agent();")["status"] == "recommended"
    agent.answers["/health"] = (503, {}, '{"status": "<b>unhealthy</b>"}')
    ill = site.ask(f"return {tests}::test_agent();")
    assert (ill["status"], "<b>" in ill["description"]) == ("recommended", False)
    with site.changed(endpoints="unix:///no/such.sock"):
        lost = site.ask(f"return {tests}::test_endpoints();")
    assert lost["status"] == "recommended"
    assert "unix:///no/such.sock: the socket does not exist" in lost["description"]
    page = site.wordpress.visit("/wp-admin/site-health.php?tab=debug", logged_in=True).text
    assert "Traces sent and lost" in page


def test_wp_cli(site):
    """The commands, with what prints for WP-CLI in its place: WP-CLI is in no package that can be had here."""
    console = """
        class WP_CLI {
            public static $said = [];
            public static function log($text) { self::$said[] = $text; }
            public static function success($text) { self::$said[] = "Success: $text"; }
            public static function warning($text) { self::$said[] = "Warning: $text"; }
            public static function error($text) { throw new Exception($text); }
        }
        eval('namespace WP_CLI\\\\Utils; function format_items($format, $items, $fields) {'
            . ' foreach ($items as $i) { \\\\WP_CLI::$said[] = implode(": ", array_slice($i, 0, 2)); } }');
        $command = new Otelwp\\Cli\\Command();
    """
    said = site.wordpress.php(
        console + "$command->status([], []); $command->config([], []); $command->flush();"
        '$command->test(); echo implode("\\n", WP_CLI::$said);'
    )
    assert "service name: shop" in said
    assert "tier: free" in said
    assert f"{site.listener.url}: accepted" in said
    assert "slow_query_ms: 50" in said
    assert "Success: State deleted." in said
    with site.changed(endpoints="unix:///no/such.sock"):
        said = site.wordpress.php(console + "try { $command->test(); } catch (Exception $e) { echo $e->getMessage(); }")
    assert said.endswith("No endpoint accepted the trace.")


def test_nothing_private_was_ever_sent(site):
    """Of everything that the tests above made it send."""
    sent = b"\n".join(site.listener.bodies).decode(errors="replace")
    assert len(site.listener.bodies) > 60
    for private in (
        "jane",
        "secret argument",
        PASSWORD,
        "wordpress_logged_in",
        "127.0.0.1:9/",
        "User-Agent",
        "illness",
    ):
        assert private not in sent
    assert "secret" not in re.sub(r"action=secret|s=secret", "", sent)
    assert str(site.wordpress.folder) not in sent, "paths of the host"


def test_as_a_must_use_plugin(site):
    site.wordpress.deactivate("otelwp")
    folder = site.wordpress.site / "wp-content/mu-plugins"
    shutil.copy(LOADER, folder / "a-loader.php")
    before = site.ask("return Otelwp\\Settings::all();")
    with site.changed(sampling_rate=0):
        site.wordpress.php("delete_option('otelwp_settings'); delete_option('otelwp_agent');")
        site.wordpress.visit("/")
        assert site.ask("return get_option('otelwp_settings') == Otelwp\\Settings::defaults();"), "nobody activates it"
    site.set(**before)
    site.trace("/")
    early = site.trace("/")
    site.wordpress.activate("otelwp")
    site.trace("/")
    both = site.trace("/")
    (folder / "a-loader.php").unlink()
    late = site.trace("/")

    def seen(trace):
        return attributes(trace.root)["wordpress.db.group_count"]

    assert early.phases == both.phases == FRONT
    assert seen(early) == seen(both) >= seen(late)


NETWORK = """
    define('WP_INSTALLING_NETWORK', true);
    require_once ABSPATH . 'wp-admin/includes/upgrade.php';
    foreach ($GLOBALS['wpdb']->tables('ms_global') as $table => $name) { $GLOBALS['wpdb']->$table = $name; }
    install_network();
    $done = populate_network(1, $_SERVER['HTTP_HOST'], 'a@example.test', 'Net', '/', false);
    echo is_wp_error($done) ? $done->get_error_message() : 'done';
"""


def test_on_a_network(site):
    """Last but two: this WordPress becomes a network."""
    wordpress = site.wordpress
    wordpress.deactivate("otelwp")
    assert wordpress.php(NETWORK).endswith("done")
    config = wordpress.site / "wp-config.php"
    constants = (
        "define('MULTISITE', true); define('SUBDOMAIN_INSTALL', false); define('DOMAIN_CURRENT_SITE',"
        f" '127.0.0.1:{wordpress.port}'); define('PATH_CURRENT_SITE', '/'); define('SITE_ID_CURRENT_SITE', 1);"
        " define('BLOG_ID_CURRENT_SITE', 1);\n$table_prefix"
    )
    config.write_text(config.read_text("utf-8").replace("$table_prefix", constants, 1), "utf-8")
    domain = f"127.0.0.1:{wordpress.port}"
    wordpress.php(
        "require ABSPATH . 'wp-admin/includes/plugin.php'; $e = activate_plugin('otelwp/otelwp.php', '', true);"
        "echo is_wp_error($e) ? $e->get_error_message() : '';"
    )
    site.set(sampling_rate=1, endpoints=site.listener.url, agent_url="")
    second = site.ask(f"return wp_insert_site(['domain' => '{domain}', 'path' => '/second/', 'user_id' => 1]);")
    assert second == 2
    assert site.ask(
        "return [get_site_option('otelwp_settings')['sampling_rate'], get_blog_option(2, 'otelwp_agent')];"
    ) == [1, []]
    end = time.monotonic() + PATIENCE
    while not (found := site.listener.read()):  # PHP looks at wp-config.php every two seconds.
        assert time.monotonic() < end
        wordpress.visit("/")
        time.sleep(0.2)
    first = found[0]
    other_site = site.trace("/?rest_route=/wp/v2/posts", headers={"Host": domain})
    assert first.resource["wordpress.site.id"] == other_site.resource["wordpress.site.id"] == 1
    assert first.resource["service.name"] == domain
    named = site.ask(
        "switch_to_blog(2); return [Otelwp\\Site::service_name(), Otelwp\\Site::resource()['wordpress.site.id']];"
    )
    assert (named[0].endswith("/second"), named[1]) == (True, 2)

    wordpress.visit("/wp-login.php", logged_in=True)  # A network has other cookies.
    wordpress.visit("/wp-login.php", {"log": USER, "pwd": PASSWORD, "testcookie": "1"}, logged_in=True)
    page = wordpress.visit("/wp-admin/network/settings.php?page=otelwp", logged_in=True)
    assert page.status == 200
    fields = form(page.text, "network/edit.php\\?action=otelwp_network_save") | {"otelwp_settings[n_plus_one]": "55"}
    save = "/wp-admin/network/edit.php?action=otelwp_network_save"
    assert wordpress.visit(save, fields, logged_in=True).status == 302
    assert wordpress.visit(save, fields | {"_wpnonce": "forged"}, logged_in=True).status == 403
    assert site.ask("return get_site_option('otelwp_settings')['n_plus_one'];") == 55
    assert wordpress.visit(SETTINGS, logged_in=True).status == 403, "a site has no page of its own then"


AS_SITE = """<?php
add_action('init', function () {
    if ('sites' !== ($_GET['case'] ?? '')) { return; }
    wp_set_current_user((int) $_GET['user']);
    $o = array_merge(Otelwp\\Settings::all(), ['agent_url' => $_GET['url'], 'n_plus_one' => (int) $_GET['n']]);
    update_option('otelwp_settings', $o);
    $saved = get_option('otelwp_settings');
    wp_send_json([$saved['agent_url'], $saved['n_plus_one'], Otelwp\\Settings::may_change('agent_url')]);
});
"""


def test_on_a_network_sites_do_not_change_addresses(site):
    """Where the plugin is active for a single site, whose administrator may change all else."""
    wordpress = site.wordpress
    activate = "require ABSPATH . 'wp-admin/includes/plugin.php';"
    wordpress.php(
        f"{activate} deactivate_plugins('otelwp/otelwp.php', false, true); activate_plugin('otelwp/otelwp.php');"
    )
    user = site.ask(
        "$id = wp_create_user('ann', 'pw-1', 'ann@example.test');add_user_to_blog(1, $id, 'administrator'); return $id;"
    )
    assert site.ask(f"return user_can({user}, 'manage_options') && ! user_can({user}, 'manage_network_options');")
    wordpress.add_must_use("sites.php", AS_SITE)
    before = site.ask("return get_option('otelwp_settings')['agent_url'];")
    address = "http://127.0.0.1:9"
    site_admin = wordpress.visit(f"/?case=sites&user={user}&url={address}&n=77")
    assert json.loads(site_admin.text) == [before, 77, False]
    network_admin = wordpress.visit(f"/?case=sites&user=1&url={address}&n=78")
    assert json.loads(network_admin.text) == [address, 78, True]
    wordpress.php(
        f"{activate} deactivate_plugins('otelwp/otelwp.php'); activate_plugin('otelwp/otelwp.php', '', true);"
    )


LEFT = """
    $left = [get_site_option('otelwp_settings'), wp_next_scheduled('otelwp_heartbeat')];
    foreach (get_sites(['fields' => 'ids']) as $id) {
        switch_to_blog($id);
        $options = $GLOBALS['wpdb']->options;
        $left = array_merge($left, $GLOBALS['wpdb']->get_col(
            "SELECT option_name FROM $options WHERE option_name LIKE '%otelwp%'"));
        restore_current_blog();
    }
    return $left;
"""


def test_uninstalling_leaves_nothing(site):
    """Last."""
    assert len(site.ask(LEFT)) > 4
    for step in ("deactivate_plugins('otelwp/otelwp.php', false, true);", "uninstall_plugin('otelwp/otelwp.php');"):
        site.wordpress.php(f"require ABSPATH . 'wp-admin/includes/plugin.php'; {step}")
    assert site.ask(LEFT) == [False, False]
