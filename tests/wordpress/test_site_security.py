"""Attacks on a real WordPress: who decides where the plugin connects, who gets the API key, and what is recorded."""

import json

import pytest

from tests.wordpress.kit import SETTINGS, Other, beat, constants, form, quoted

pytestmark = pytest.mark.interop


def test_the_caller_of_a_stranger_is_linked_to(site, other):
    """It decides about nothing: a request that it wants recorded is not, and one that it does not want is."""
    id_, span = "f" * 32, "e" * 16
    with site.changed(trusted_proxies=["10.0.0.0/8"]):
        for flags in ("00", "01"):
            headers = {"traceparent": f"00-{id_}-{span}-{flags}", "tracestate": "x=1,ot=rv:ffffffffffffff"}
            trace = site.trace(f"/?case=http&to={other.url}", headers=headers | {"X-Forwarded-For": "10.0.0.1"})
            (link,) = trace.root.links
            assert (link.trace_id.hex(), link.span_id.hex(), link.flags) == (id_, span, 0x300 | int(flags))
            assert (trace.root.trace_id.hex() != id_, trace.root.parent_span_id) == (True, b"")
            assert trace.root.trace_state == "ot=th:0"
            assert other.seen[-1][2]["traceparent"].split("-")[1] == trace.root.trace_id.hex()
    with site.changed(trusted_proxies=[], sampling_rate=0):
        site.wordpress.visit("/", headers=headers)
        site.wordpress.visit("/", headers=headers)
    site.after_marker()


def test_the_api_key_goes_to_an_address_in_wp_config_alone(site, agent):
    agent.answers["/v1/plugins/heartbeat"] = (200, {}, "{}")
    agent.answers["/health"] = (200, {}, '{"status": "healthy"}')
    health = "return Otelwp\\Admin\\Site_Health::test_agent();"
    with constants(site, OTELWP_API_KEY="s3cr3t"):
        assert beat(site) == "heartbeat"
        page = site.wordpress.visit(SETTINGS, logged_in=True).text
        report = site.ask(health)
    assert "authorization" not in agent.seen[0][2], "the address is in the database"
    assert "not sent: define OTELWP_AGENT_URL in wp-config.php" in page
    assert (report["status"], "OTELWP_AGENT_URL" in report["description"]) == ("recommended", True)
    agent.seen.clear()
    with constants(site, OTELWP_API_KEY="s3cr3t", OTELWP_AGENT_URL=agent.url):
        assert beat(site) == "heartbeat"
        page = site.wordpress.visit(SETTINGS, logged_in=True).text
        debug = site.wordpress.visit("/wp-admin/site-health.php?tab=debug", logged_in=True).text
        report = site.ask(health)
        with site.changed(sampling_url=f"{agent.url}/sampling"):
            beat(site)
    assert agent.seen[0][2]["authorization"] == "Bearer s3cr3t"
    assert [path for _, path, headers, _ in agent.seen if "sampling" in path and "authorization" in headers] == []
    assert report["status"] == "good"
    assert "s3cr3t" not in page + debug


def test_the_api_key_follows_no_redirect(site, agent):
    with Other() as elsewhere:
        to = {"Location": f"{elsewhere.url}/v1/plugins/heartbeat"}
        agent.answers["/v1/plugins/heartbeat"] = (307, to, "")
        with constants(site, OTELWP_API_KEY="s3cr3t", OTELWP_AGENT_URL=agent.url):
            assert "307" in beat(site)
    assert elsewhere.seen == []


INJECTED = """
    global $wpdb;  // As an injection of SQL does it, past every check.
    $o = array_merge(Otelwp\\Settings::all(), json_decode({}, true));
    $wpdb->update($wpdb->options, ['option_value' => serialize($o)], ['option_name' => 'otelwp_settings']);
    wp_cache_flush();
    return true;
"""


def test_an_address_that_was_injected_is_not_used(site):
    before = site.ask("return Otelwp\\Settings::all();")
    bad = {"endpoints": ["http://collector.example", "http://169.254.169.254"], "agent_url": "http://10.0.0.7"}
    try:
        site.ask(INJECTED.format(quoted(json.dumps(bad))))
        assert "Another host must be configured in wp-config.php: define the constant OTELWP_AGENT_URL" in beat(site)
        page = site.wordpress.visit(SETTINGS, logged_in=True).text
        health = site.ask("return Otelwp\\Admin\\Site_Health::test_endpoints();")
        sent = site.ask("return Otelwp\\Test_Trace::send();")["endpoints"]
    finally:
        site.ask(INJECTED.format(quoted(json.dumps(before))))
    for text in (page, health["description"]):
        assert "define the constant OTELWP_ENDPOINTS there" in text
        assert "a link-local, metadata or reserved address" in text
    assert [why.partition(",")[0] for why in sent.values()] == ["refused", "refused"]
    assert site.listener.read() == []
    site.after_marker()


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        ("agent_url", "http://collector.example", "define the constant OTELWP_AGENT_URL there"),
        ("agent_url", "http://169.254.169.254", "a link-local, metadata or reserved address"),
        ("sampling_url", "http://0x7f000001:5778/sampling", "ambiguous spelling"),
        ("endpoints", "http://[::ffff:169.254.169.254]", "a link-local, metadata or reserved address"),
        ("endpoints", "http://127.0.0.1:4318\nudp://10.0.0.7:4319", "define the constant OTELWP_ENDPOINTS there"),
        ("endpoints", "unix:///proc/self/exe", "symbolic link"),
        ("endpoints", "unix:///etc/passwd", "not a socket"),
        ("trusted_proxies", "10.0.0.0/8 10.0.0.0/99", "10.0.0.0/99 is not a network"),
    ],
)
def test_an_address_that_is_refused_is_not_saved(site, setting, value, problem):
    stored = f"return get_option('otelwp_settings')['{setting}'];"
    before = site.ask(stored)
    fields = form(site.wordpress.visit(SETTINGS, logged_in=True).text, "options.php")
    fields[f"otelwp_settings[{setting}]"] = value
    assert site.wordpress.visit("/wp-admin/options.php", fields, logged_in=True).status == 302
    shown = site.wordpress.visit(f"{SETTINGS}&settings-updated=true", logged_in=True).text
    assert problem in shown
    assert site.ask(stored) == before


def test_whoever_saves_the_option_is_checked(site):
    """Not the settings page alone: another plugin may let somebody save any option."""
    code = "$o = get_option('otelwp_settings'); $o['agent_url'] = 'http://collector.example'; $o['max_spans'] = 9;"
    found = site.ask(f"{code} update_option('otelwp_settings', $o); return get_option('otelwp_settings');")
    assert (found["agent_url"], found["max_spans"]) == ("", 20)
    site.set(max_spans=200)


def test_secrets_in_addresses_are_not_reported(site):
    endpoints = "http://agent.example/t/s3cr3t/v1/traces https://ann:s3cr3t@agent.example"
    with constants(site, OTELWP_ENDPOINTS=endpoints, OTELWP_AGENT_URL="http://127.0.0.1:9/s3cr3t"):
        pages = [
            site.wordpress.visit(path, logged_in=True).text
            for path in (SETTINGS, "/wp-admin/site-health.php?tab=debug")
        ]
        information = site.ask("return apply_filters('debug_information', [])['otelwp'] ?? null;")
        reports = [
            site.ask(f"return Otelwp\\Admin\\Site_Health::{test}();") for test in ("test_endpoints", "test_agent")
        ]
    assert "agent.example" in pages[0]
    assert "s3cr3t" not in json.dumps([pages, information, reports])


def test_strings_of_the_agent_are_text(site, agent):
    """The agent, or whoever answers in its place, cannot write markup into the dashboard or fill the options."""
    script = "<script>alert(1)</script>"
    reply = {"tier": script, "features": [script, "x" * 5000], "sampling": {"rate": script}, "status": script}
    agent.answers["/v1/plugins/heartbeat"] = (200, {"X-OTelWP-Tier": script}, json.dumps(reply))
    agent.answers["/health"] = (503, {}, json.dumps({"status": script + "y" * 5000}))
    assert beat(site) == "heartbeat"
    page = site.wordpress.visit(SETTINGS, logged_in=True).text
    health = site.ask("return Otelwp\\Admin\\Site_Health::test_agent();")
    assert "<script>alert" not in page + health["description"]
    assert len(health["description"]) < 400
    assert len(site.ask("return serialize(get_option('otelwp_agent'));")) < 500


SUBSCRIBER = """
    $id = wp_insert_user(['user_login' => 'sub' . wp_rand(), 'user_pass' => 'x', 'role' => 'subscriber']);
    wp_set_current_user($id);
    $_REQUEST['_wpnonce'] = wp_create_nonce({action});
    require_once ABSPATH . 'wp-admin/includes/template.php';
    Otelwp\\Admin\\Settings_Page::{method}();
    echo 'not stopped';
"""


@pytest.mark.parametrize(("method", "action"), [("test", "'otelwp_test'"), ("save_network", "'otelwp-options'")])
def test_a_nonce_is_no_permission(site, method, action):
    """A subscriber with a valid nonce sends no trace and saves nothing."""
    said = site.wordpress.php(SUBSCRIBER.format(method=method, action=action))
    assert "not allowed to" in said
    assert "not stopped" not in said


def test_a_subscriber_asks_nothing(site):
    routes = """
        $id = wp_insert_user(['user_login' => 'sub' . wp_rand(), 'user_pass' => 'x', 'role' => 'subscriber']);
        wp_set_current_user($id);
        return rest_do_request(new WP_REST_Request('GET', '/otelwp/v1/agent'))->get_status();
    """
    assert site.ask(routes) == 403


def test_a_failure_of_the_plugin_is_one_line_in_the_log(site):
    """An exception in an action holds whatever a plugin, or a visitor, put into it."""
    config = site.wordpress.site / "wp-config.php"
    text = config.read_text("utf-8")
    site.wordpress.add_must_use(
        "failing.php",
        "<?php add_action('otelwp_trace', function () {"
        ' throw new DomainException("no\\n[forged] line, password=hunter2"); });',
    )
    log = site.wordpress.folder / "failing.log"
    site.wordpress.add_must_use("log.php", f"<?php ini_set('error_log', '{log}');")
    debug = "define( 'WP_DEBUG', true ); define( 'WP_DEBUG_DISPLAY', false ); define( 'WP_DEBUG_LOG', false );"
    config.write_text(text.replace("define( 'WP_DEBUG', false );", debug), "utf-8")
    try:
        site.wordpress.php("echo 'x';")
    finally:
        config.write_text(text, "utf-8")
        for name in ("failing.php", "log.php"):
            (site.wordpress.site / "wp-content/mu-plugins" / name).unlink()
    lines = [line for line in log.read_text("utf-8").splitlines() if "OTelWP" in line or "forged" in line]
    assert len(lines) == 1
    assert "DomainException: no [forged] line, password=REDACTED in wp-content/mu-plugins/failing.php" in lines[0]


def test_secrets_of_a_request_stay_here(site):
    token = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
    trace = site.trace(f"/reset/{token}/", status=404)
    assert token.encode() not in trace.body
    assert b"/reset/REDACTED/" in trace.body
