"""What administrators see and change on a real WordPress: the settings page, Site Health and WP-CLI."""

import re

import pytest

from tests.wordpress.kit import SETTINGS, form

pytestmark = pytest.mark.interop


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


def test_links_to_the_page_of_the_agent(site):
    assert "Open the page of the agent" not in site.wordpress.visit(SETTINGS, logged_in=True).text
    with site.changed(ui_url="https://agent.example/ui/"):
        page = site.wordpress.visit(SETTINGS, logged_in=True)
        assert 'href="https://agent.example/ui/" rel="noopener noreferrer">Open the page of the agent' in page.text
        site.wordpress.visit("/wp-admin/admin-post.php", form(page.text, "admin-post.php"), logged_in=True)
        shown = site.wordpress.visit(f"{SETTINGS}&otelwp-test=1", logged_in=True).text
        assert re.search(r'href="https://agent\.example/ui/#/trace\?id=[0-9a-f]{32}"', shown)
    for wrong in ("javascript:alert(1)", 'http://a"><script>', "//agent.example"):
        site.set(ui_url=wrong)
        assert site.ask("return Otelwp\\Settings::get('ui_url');") == ""


def test_the_test_trace_over_http(site, other):
    with site.changed(endpoints=f"{other.url}/v1/traces"):
        page = site.wordpress.visit(SETTINGS, logged_in=True)
        other.seen.clear()
        site.wordpress.visit("/wp-admin/admin-post.php", form(page.text, "admin-post.php"), logged_in=True)
        (headers,) = [
            headers for _, path, headers, body in other.seen if path == "/v1/traces" and b"otelwp test" in body
        ]
        assert headers["content-type"] == "application/x-protobuf"


def test_a_refused_test_trace_costs_pages_nothing(site, other):
    other.answers["/v1/traces"] = (400, {}, "{}")
    with site.changed(endpoints=f"{other.url}/v1/traces\n{site.listener.url}"):
        page = site.wordpress.visit(SETTINGS, logged_in=True)
        site.wordpress.visit("/wp-admin/admin-post.php", form(page.text, "admin-post.php"), logged_in=True)
        shown = site.wordpress.visit(f"{SETTINGS}&otelwp-test=1", logged_in=True).text
        assert "it answers with status 400" in shown
        assert "notice-warning" in shown
        failing = site.ask("Otelwp\\Test_Trace::send(); return array_values((new Otelwp\\Breaker())->failing());")
        assert "it answers with status 400" not in [each["why"] for each in failing]


def test_the_settings_page_says_when_the_last_trace_was_accepted(site):
    site.trace("/")
    shown = site.wordpress.visit(SETTINGS, logged_in=True).text
    assert re.search(r"at \d\d:\d\d:\d\d, \d+ spans, accepted by unixgram:///", shown)


def test_settings_for_experts_are_folded(site):
    shown = site.wordpress.visit(SETTINGS, logged_in=True).text
    before, after = shown.split("<details>", 1)
    assert 'id="otelwp-endpoints"' in before
    assert 'id="otelwp-max_spans"' in after
    assert shown.count("<details>") == shown.count("</details>") == 4


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
