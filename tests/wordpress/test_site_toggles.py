"""What a real WordPress does with the toggles and notices in the answers of a collector in the test's own hands."""

import json
import re
import time

import pytest

from otelwp_agent.control.fleet.signed_toggles import ToggleSigner
from otelwp_agent.control.fleet.toggles import KEYS
from otelwp_agent.licensing.signatures import generate_key, private_pem, public_text
from tests.kit.agent import PATIENCE
from tests.wordpress.kit import beat, form

pytestmark = pytest.mark.interop

HEARTBEAT = "/v1/plugins/heartbeat"
INSTALLATION = "1c5c4f04-6a0c-5d6b-9f1c-0f6a0a8f9a11"
TOGGLES = """
    return ['on' => array_values(array_filter(Otelwp\\Toggles::KEYS, ['Otelwp\\Agent', 'toggle'])),
            'problem' => Otelwp\\Fleet::state()['problem'], 'rate' => Otelwp\\Agent::sampling_rate()];
"""
EXPIRE = "$s = get_option('otelwp_agent'); $s['toggles_until'] = time() - 1; return update_option('otelwp_agent', $s);"
NOTICES = "/wp-admin/plugins.php"


class Operator:
    """Answers the heartbeats of a site with toggles that `key` has signed."""

    def __init__(self, site, other):
        self.site = site
        self.other = other
        self.key = generate_key()

    def answer(self, *on, key=None, installation=INSTALLATION, signed=True, at=0, **more):
        """Answer the next heartbeat with the toggles `on`; return what the site makes of it."""
        signer = ToggleSigner(3600.0)
        signer.use(private_pem(key or self.key).decode())
        toggles = {each: each in on for each in KEYS}
        reply = {"status": "ok", "installation_id": installation, "toggles": toggles} | more
        if signed:
            reply["signed_toggles"] = signer.sign(installation, toggles, [], time.time() + at)
        self.other.answers[HEARTBEAT] = (200, {}, json.dumps(reply))
        assert beat(self.site) == "heartbeat"
        return self.site.ask(TOGGLES)


@pytest.fixture
def operator(site, agent):
    made = Operator(site, agent)
    with site.changed(merchant_id="acme", toggles_key=public_text(made.key)):
        yield made
    site.ask("foreach (['otelwp_agent', 'otelwp_fleet'] as $name) update_option($name, []); return true;")


def test_toggles_that_are_not_signed_are_not_obeyed(site, operator):
    found = operator.answer("block_plugin", signed=False)
    assert (found["on"], found["problem"]) == ([], "the answer contains no signed toggles")
    assert site.trace("/")


def test_a_forged_answer_ends_earlier_toggles(site, operator):
    assert operator.answer("block_plugin")["on"] == ["block_plugin"]
    assert operator.answer("block_plugin", key=generate_key())["on"] == []
    assert site.trace("/")


def test_the_answer_to_another_installation_is_not_obeyed(operator):
    operator.answer()
    found = operator.answer("block_plugin", installation="9" + INSTALLATION[1:])
    assert (found["on"], found["problem"]) == ([], "they are for another installation")


def test_an_earlier_answer_is_not_obeyed_again(operator):
    operator.answer(at=0)
    found = operator.answer("block_plugin", at=-60)
    assert (found["on"], found["problem"]) == ([], "they are older than the toggles of an earlier answer")


def test_a_toggle_ends_by_itself_if_the_collector_is_away(site, operator):
    """Its end is signed. A heartbeat that fails changes nothing before; after it, the site records again."""
    operator.answer("block_plugin")
    operator.other.answers[HEARTBEAT] = (503, {"Retry-After": "7200"}, "")
    assert "503" in beat(site)
    assert site.ask(TOGGLES)["on"] == ["block_plugin"]
    site.wordpress.visit("/")
    assert site.ask(EXPIRE)
    site.after_marker()


def test_the_collector_decides_when_the_next_heartbeat_is_due(site, operator):
    operator.answer(next_heartbeat_seconds=3600)
    operator.other.seen.clear()
    run = "Otelwp\\Heartbeat::run(); return true;"
    site.ask(run)
    assert operator.other.seen == []
    site.ask("$s = get_option('otelwp_fleet'); $s['next'] = time() - 1; return update_option('otelwp_fleet', $s);")
    site.ask(run)
    assert [path for _, path, _, _ in operator.other.seen] == [HEARTBEAT]


def test_fewer_requests_are_recorded(operator):
    assert operator.answer("rate_limit")["rate"] == 0.01
    assert operator.answer()["rate"] == 1


def test_the_debug_log(site, operator):
    log = site.wordpress.folder / "debug.log"
    site.wordpress.add_must_use("log.php", f"<?php ini_set('error_log', '{log}');")
    try:
        operator.answer("enable_debug")
        trace_id = site.trace("/").root.trace_id.hex()
        line = re.compile(rf"OTelWP: trace {trace_id}: \d+ spans, \d+ bytes, .* accepted by unixgram:///")
        end = time.monotonic() + PATIENCE
        while not line.search(log.read_text("utf-8") if log.exists() else ""):
            assert time.monotonic() < end
            time.sleep(0.05)  # PHP writes it after the page
        operator.answer()
        other = site.trace("/").root.trace_id.hex()
        assert other not in log.read_text("utf-8")
    finally:
        (site.wordpress.site / "wp-content/mu-plugins/log.php").unlink()


def test_notices_are_shown_and_acknowledged(site, operator):
    notice = {"id": "n-1", "latest_version": "9.9.9", "priority": "critical", "notes": "<script>alert(1)</script>Fix"}
    operator.answer("force_update", notifications=[notice, {"id": 7}, "x"])
    page = site.wordpress.visit(NOTICES, logged_in=True).text
    assert "Version 9.9.9 of OTelWP is available. Fix" in page
    assert "requires an update of OTelWP" in page
    assert "<script>alert" not in page
    assert "9.9.9" not in site.wordpress.visit("/", logged_in=True).text
    fields = form(page, "admin-post.php")
    assert (fields["action"], fields["notice"]) == ("otelwp_dismiss", "n-1")
    assert site.wordpress.visit("/wp-admin/admin-post.php", fields | {"_wpnonce": "0"}, logged_in=True).status == 403
    assert site.wordpress.visit("/wp-admin/admin-post.php", fields).status in (302, 400)
    assert "9.9.9" in site.wordpress.visit(NOTICES, logged_in=True).text
    assert site.wordpress.visit("/wp-admin/admin-post.php", fields, logged_in=True).status == 302
    assert "9.9.9" not in site.wordpress.visit(NOTICES, logged_in=True).text
    operator.answer(notifications=[notice])
    assert json.loads(operator.other.seen[-1][3])["acknowledged"] == ["n-1"]


def test_fatal_errors_are_saved_although_the_request_is_not_recorded(site, operator):
    operator.answer()
    with site.changed(sampling_rate=0):
        for case in ("fatal", "memory", "exception"):
            site.wordpress.visit(f"/?case={case}")
    found = "return array_column(array_column(Otelwp\\Events::saved(), 'event_data'), 'message');"
    end = time.monotonic() + PATIENCE
    while len(messages := site.ask(found)) < 3:
        assert time.monotonic() < end
        time.sleep(0.05)  # PHP ends after the answer
    assert {message.partition(" of ")[0] for message in messages} == {
        "Call to undefined function otelwp_no_such_function()",
        "Allowed memory size",
        "No mail to [email] about x",
    }
    site.ask("foreach (Otelwp\\Events::saved() as $name => $event) { delete_option($name); } return true;")


def test_events_wait_for_the_collector_and_are_limited(site, operator):
    operator.answer()
    add = "for ($i = 0; $i < 205; $i++) { $saved[] = Otelwp\\Events::add('info', ['message' => \"number $i\"]); }"
    assert site.ask(f"{add} return count(array_filter($saved));") == 200
    operator.other.answers["/v1/plugins/event"] = (429, {}, "")
    send = "$r = Otelwp\\Events::send(); return is_wp_error($r) ? $r->get_error_message() : $r;"
    operator.other.seen.clear()
    assert "429" in site.ask(send)
    assert len(operator.other.seen) == 1
    operator.other.answers["/v1/plugins/event"] = (200, {}, '{"status": "ok"}')
    while site.ask("return Otelwp\\Events::errors_last_hour() . count(Otelwp\\Events::saved());") != "00":
        assert site.ask(send) == ""
    sent = [json.loads(body) for _, path, _, body in operator.other.seen if path == "/v1/plugins/event"]
    messages = [each["event_data"]["message"] for each in sent]
    assert messages == ["number 0", *(f"number {number}" for number in range(200))]
    assert len({each["event_id"] for each in sent}) == 200
