"""A real WordPress in the fleet of a real agent: heartbeats, events and signed toggles, over TLS."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otelwp_agent import __version__
from otelwp_agent.licensing.signatures import generate_key, public_text
from tests.kit.agent import PATIENCE, Agent
from tests.kit.certificates import Authority
from tests.wordpress.kit import SETTINGS, beat, constants

pytestmark = pytest.mark.interop

CONFIG = """
extensions:
  control_store: {{url: 'sqlite:///{folder}/control.db'}}
  api_key/heartbeat: {{store: control_store, scope: heartbeat}}
  fleet: {{store: control_store}}
receivers:
  heartbeat:
    endpoint: 127.0.0.1:0
    auth: {{authenticator: api_key/heartbeat}}
    signing_key_file: {folder}/toggles.pem
    tls: {{cert_file: {pair.cert_file}, key_file: {pair.key_file}}}
exporters: {{file: {{path: '{folder}/fleet.jsonl'}}}}
service:
  extensions: [control_store, api_key/heartbeat, fleet]
  pipelines:
    metrics: {{receivers: [heartbeat], exporters: [file]}}
    logs: {{receivers: [heartbeat], exporters: [file]}}
"""
TOGGLES = """
    return [array_values(array_filter(Otelwp\\Toggles::KEYS, ['Otelwp\\Agent', 'toggle'])),
            Otelwp\\Fleet::state()['problem']];
"""
SAVED = """
    global $wpdb;
    return (int) $wpdb->get_var("SELECT COUNT(*) FROM $wpdb->options WHERE option_name LIKE 'otelwp\\\\_event\\\\_%'");
"""
DUE = """
    wp_clear_scheduled_hook('otelwp_heartbeat');
    return wp_schedule_event(time() - 1, 'otelwp_five_minutes', 'otelwp_heartbeat');
"""
FORGET = "foreach (['otelwp_agent', 'otelwp_fleet'] as $name) update_option($name, []); return true;"


def beat_until(site, wanted):
    """Send heartbeats until the result contains `wanted`: on a busy machine the agent may answer too late."""
    end = time.monotonic() + PATIENCE
    while wanted not in (found := beat(site)):
        assert time.monotonic() < end, found


class Collector:
    """A managed collector with the merchant `acme`."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = Authority(folder)
        self.command("control", "migrate", *self.store)
        self.control("tenants", "create", "acme", "--plan", "enterprise")
        self.api_key = self.control("api-keys", "create", "acme", "--scope", "heartbeat")["key"]
        self.public_key = self.command("license", "keygen", str(folder / "toggles.pem")).strip()
        self.config = CONFIG.format(folder=folder, pair=self.authority.sign())

    @property
    def store(self):
        return ["--store", f"sqlite:///{self.folder}/control.db"]

    def command(self, *arguments):
        program = Path(sys.executable).with_name("otelwp-agent")
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def control(self, *arguments):
        return json.loads(self.command(*arguments, *self.store, "--json"))

    def installation(self):
        (found,) = self.control("fleet", "list")
        return self.control("fleet", "show", found["id"])

    def toggle(self, site, key, state, *options):
        """Set a toggle, and have the site send a heartbeat; return the toggles that it obeys, and why not others."""
        (found,) = self.control("fleet", "list")
        self.control("fleet", "toggle", found["id"], key, state, *options)
        beat_until(site, "heartbeat")
        return site.ask(TOGGLES)


@pytest.fixture(scope="module")
def collector(tmp_path_factory):
    made = Collector(tmp_path_factory.mktemp("fleet"))
    with Agent(made.config, made.folder) as made.agent:
        yield made


@pytest.fixture
def fixed(collector):
    """The constants of the site in wp-config.php."""
    return {
        "OTELWP_API_KEY": collector.api_key,
        "OTELWP_HEARTBEAT_URL": f"https://localhost:{collector.agent.port(component='heartbeat')}",
        "OTELWP_CA_FILE": collector.authority.ca_file,
    }


@pytest.fixture
def member(site, collector, fixed):
    """The site, which has sent a heartbeat to the collector, and obeys no toggle."""
    with constants(site, **fixed), site.changed(merchant_id="acme", toggles_key=collector.public_key):
        beat_until(site, "heartbeat")
        yield site
    site.ask(FORGET)


def test_the_site_is_registered(member, collector):
    shown = collector.installation()
    assert (shown["cms"], shown["plugin_version"], shown["environment"]) == ("wordpress", __version__, "staging")
    assert member.ask("return Otelwp\\Fleet::state()['installation'];") == shown["id"]
    page = member.wordpress.visit(SETTINGS, logged_in=True).text
    assert shown["id"] in page
    assert collector.api_key not in page


def test_wp_cron_sends_errors_and_events(member, collector):
    member.wordpress.visit("/?case=exception")
    member.ask(
        "do_action('otelwp_event', 'payment_failed', ['order_id' => 7, 'mail' => 'ann@shop.example']);"
        "do_action('otelwp_event', 'nonsense', []); return true;"
    )
    assert member.ask(SAVED) == 2
    end = time.monotonic() + PATIENCE
    while member.ask(SAVED):  # wp-cron.php may go on after its answer, and an answer of the agent may be late
        assert time.monotonic() < end
        member.ask(DUE)
        member.wordpress.visit("/wp-cron.php")
    events = collector.installation()["recent_events"]
    found = {each["event_type"]: each for each in events}
    assert found.keys() == {"error", "payment_failed"}
    error = found["error"]
    assert (error["severity"], error["event_data"]["error_code"]) == ("critical", "DomainException")
    assert error["stack_trace"].startswith("wp-content/mu-plugins/cases.php:")
    assert "jane" not in json.dumps(error)
    assert "ann@" not in json.dumps(found)
    assert member.ask("return Otelwp\\Events::errors_last_hour();") == 1
    beat_until(member, "heartbeat")
    telemetry = (collector.folder / "fleet.jsonl").read_text("utf-8")
    assert '"plugin.payment_failed"' in telemetry
    assert '"plugin.errors_last_hour"' in telemetry


def test_a_blocked_site_records_nothing(member, collector):
    on, _ = collector.toggle(member, "block_plugin", "on", "--yes", "--reason", "CVE")
    assert on == ["block_plugin"]
    assert member.wordpress.visit("/").status == 200
    assert "has stopped OTelWP" in member.wordpress.visit("/wp-admin/plugins.php", logged_in=True).text
    assert collector.toggle(member, "block_plugin", "off") == [[], ""]
    member.after_marker()


def test_toggles_that_another_key_has_signed_are_not_obeyed(member, collector):
    with member.changed(toggles_key=public_text(generate_key())):
        on, problem = collector.toggle(member, "block_plugin", "on", "--yes", "--reason", "CVE")
        assert on == []
        assert "the signature is invalid" in problem
        assert "not obeyed: the signature is invalid" in member.wordpress.visit(SETTINGS, logged_in=True).text
        assert member.trace("/")
    assert collector.toggle(member, "block_plugin", "off") == [[], ""]


def test_a_collector_without_a_trusted_certificate_gets_nothing(site, fixed):
    del fixed["OTELWP_CA_FILE"]
    with constants(site, **fixed), site.changed(merchant_id="acme"):
        beat_until(site, "no trusted TLS connection")
    site.ask(FORGET)


def test_a_refused_heartbeat_says_why(site, collector, fixed):
    with constants(site, **fixed), site.changed(merchant_id="globex"):
        beat_until(site, "this API key is not of this merchant")
    site.ask(FORGET)
