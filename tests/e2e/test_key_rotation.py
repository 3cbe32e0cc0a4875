"""Sealing keys are replaced while an agent sends: nothing is lost, and old envelopes open until their key's end."""

import functools
import http.client
import http.server
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from otelwp_agent.licensing.public_keys import load_keys
from otelwp_agent.model.signal import Signal
from otelwp_agent.sealing.envelope import MEDIA_TYPE, SealedHeader, seal
from otelwp_agent.sealing.key_set import verify_key_set
from tests.kit.agent import PATIENCE, Agent, post
from tests.kit.otlp import delimited

SENDER = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:0"}}}}}}}}
processors:
  batch: {{timeout: 10ms}}
  compression: {{min_size: 0}}
  encryption:
    recipients: {{url: "{url}", public_keys: [{public_key}], refresh_interval: 100ms}}
exporters:
  managed: {{endpoint: "http://127.0.0.1:{port}", retry_on_failure: {{initial_interval: 50ms, max_interval: 200ms}}}}
service:
  pipelines: {{traces: {{receivers: [otlp], processors: [batch, compression, encryption], exporters: [managed]}}}}
"""
RECIPIENT = """
receivers:
  otlp:
    protocols: {{http: {{endpoint: "127.0.0.1:0"}}}}
    sealed: {{mode: open, keys: "{keys}"}}
exporters: {{file: {{path: "{output}", flush_interval: 50ms}}}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}}}
"""


def span(name):
    return delimited(
        1, delimited(2, delimited(2, delimited(1, b"t" * 16) + delimited(2, b"s" * 8) + delimited(5, name)))
    )


class Owner:
    """The owner of the keys, who uses the command line, a web server and copies of files."""

    def __init__(self, folder):
        self.folder, self.published, self.copied = folder / "keys", folder / "www", folder / "opening-keys.json"
        self.published.mkdir()
        self.public_key = self.keys("generate")
        handler = functools.partial(Quiet, directory=self.published)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/key-set.jws"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.copy()
        self.publish()

    def keys(self, command, *options):
        program = Path(sys.executable).with_name("otelwp-agent")
        words = [program, "keys", command, self.folder, *options]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    def copy(self):
        """Copy the private keys to the collector."""
        self._replace("opening-keys.json", self.copied)

    def publish(self):
        self._replace("key-set.jws", self.published / "key-set.jws")

    def _replace(self, name, target):
        draft = target.with_suffix(".draft")
        shutil.copy(self.folder / name, draft)
        draft.replace(target)

    def listed(self):
        return json.loads(self.keys("list", "--json"))["keys"]

    def recipient(self):
        text = (self.folder / "key-set.jws").read_text()
        return verify_key_set(text, load_keys([self.public_key])).recipient(time.time())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


class Load(threading.Thread):
    """Sends spans with different names until it is stopped."""

    def __init__(self, port):
        super().__init__()
        self.port, self.sent, self.ended = port, [], threading.Event()

    def run(self):
        while not self.ended.is_set():
            name = b"%06d" % len(self.sent)
            assert post(self.port, "/v1/traces", span(name)) == 200
            self.sent.append(name.decode())


def arrived(output):
    found = Counter()
    for line in output.read_text().splitlines() if output.exists() else ():
        for resource in json.loads(line)["resourceSpans"]:
            found.update(each["name"] for scope in resource["scopeSpans"] for each in scope["spans"])
    return found


def refused(collector):
    return collector.metric("otelwp_receiver_refused_requests", reason="unknown_key")


def post_sealed(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", "/v1/traces", body, {"Content-Type": MEDIA_TYPE})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def sealed_to(recipient, name):
    body = span(name)
    header = SealedHeader("", int(time.time() * 1000), signal=Signal.TRACES, items=1, plain_size=len(body))
    return seal(recipient, header, body)


@pytest.fixture
def owner(tmp_path):
    with Owner(tmp_path) as owner:
        yield owner


def test_keys_are_replaced_under_load(owner, tmp_path):
    output = tmp_path / "out.json"
    recipient = RECIPIENT.format(keys=owner.copied, output=output)
    with Agent(recipient, tmp_path, name="collector", metrics=True) as collector:
        port = collector.port()
        sender = SENDER.format(url=owner.url, public_key=owner.public_key, port=port)
        with Agent(sender, tmp_path, name="sender", metrics=True) as agent:
            agent.wait_for_metric("otelwp_processor_encryption_key_set_version", 1)
            load = Load(agent.port())
            load.start()
            try:
                for version in (2, 3, 4):  # in the right order: the collector has a key before agents use it
                    old = owner.recipient()
                    owner.keys("rotate", "--lead", "0", "--overlap", "10m")
                    owner.copy()
                    collector.wait_for("file reloaded", count=version - 1)
                    owner.publish()
                    agent.wait_for_metric("otelwp_processor_encryption_key_set_version", version)
                    name = f"old-{version}"
                    assert post_sealed(port, sealed_to(old, name.encode()))[0] == 200, "the old key has not ended"
                    load.sent.append(name)
                assert refused(collector) == 0, "nothing valid is refused"

                old = owner.recipient()
                owner.keys("rotate", "--lead", "0", "--overlap", "1s")  # in the wrong order
                owner.publish()
                agent.wait_for_metric("otelwp_processor_encryption_key_set_version", 5)
                agent.wait_for("envelope refused", reason="unknown_key")
                owner.copy()
                collector.wait_for("file reloaded", count=4)
                assert refused(collector) > 0

                (end,) = {key["not_after"] for key in owner.listed() if key["key_id"] == old.key_id}
                time.sleep(max(0.0, end - time.time()))  # until the real end of the key
                status, answer = post_sealed(port, sealed_to(old, b"ended"))
                assert status == 409
                assert json.loads(answer)["reason"] == "unknown_key"
            finally:
                load.ended.set()
                load.join()
            assert agent.stop() == 0
        assert collector.stop() == 0
    assert arrived(output) == Counter(load.sent), "each span has arrived once"
    assert len(load.sent) > 20
