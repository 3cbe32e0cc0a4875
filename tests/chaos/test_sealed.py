"""Sealed requests between two agents that are killed at random, over a wire that changes bytes and repeats requests.

The collector states what it did for two tenants: `acme`, whose agent seals, and `globex`, which sends to it directly.
"""

import http.client
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.licensing.public_keys import key_id
from otelwp_agent.licensing.signatures import generate_key, private_pem, public_text
from otelwp_agent.statements.chain import verify_chains
from tests.chaos.child import Child
from tests.chaos.trial import Trial, Verdict, ledger
from tests.kit.agent import PATIENCE, Agent, free_port
from tests.kit.managed_site import new_keys
from tests.kit.statement_files import an_hour_passes, tampered, texts_of
from tests.kit.tenants import Tenants

RATE = 200.0
"""Requests a second."""
DEATHS = 3
"""Kills of each agent, at least, however slow the machine is: so there are three statements of each tenant."""
LIFE_SECONDS = (0.5, 2.0)
"""How long both agents live before one of them is killed."""

TENANTS = ("acme", "globex")
FIRST_OF_GLOBEX = 4_000_000
"""Number of a span that the load does not reach."""
SPANS = 10

SENDER = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}
processors:
  compression: {{min_size: 0}}
  encryption:
    customer_id: acme
    message_id_key_file: {folder}/message-id.key
    recipients: {{keys: [{{key_id: {key_id}, public_key: {public_key}}}]}}
exporters:
  managed:
    endpoint: http://127.0.0.1:{wire}
    api_key: {acme}
    timeout: 2s
    retry_on_failure:
      initial_interval: 50ms
      max_interval: 500ms
      circuit_breaker: {{open_time: 100ms, max_open_time: 500ms}}
service:
  journal: {{directory: '{folder}/sender-journal'}}
  pipelines:
    traces: {{receivers: [otlp], processors: [compression, encryption], exporters: [managed]}}
"""
COLLECTOR = """
extensions:
  control_store: {{url: 'sqlite:///{folder}/control.db', pepper_file: {folder}/pepper}}
  api_key:
  delivery_statements:
    file: {folder}/statements.db
    key_file: {folder}/statements.pem
    agent: collector
    checkpoint_interval: 300ms
receivers:
  otlp:
    sealed: {{keys: {folder}/opening-keys.json}}
    protocols: {{http: {{endpoint: '127.0.0.1:{port}', auth: {{authenticator: api_key}}}}}}
exporters:
  otlp_http:
    endpoint: http://127.0.0.1:{sink}
    compression: none
    timeout: 1s
    retry_on_failure: {{initial_interval: 50ms, max_interval: 500ms}}
service:
  extensions: [control_store, api_key, delivery_statements]
  journal: {{directory: '{folder}/collector-journal'}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
"""


class Globex:
    """A tenant that sends a request of ten spans at a time, until it is accepted, always with the same key for it."""

    def __init__(self, port, api_key):
        self.port, self.api_key = port, api_key
        self.sent = 0

    def send(self):
        """Send the next request, and do not wait for the answer."""
        self.sent += SPANS
        with closing(self._request()):
            pass

    def finish(self):
        """Send it again until it is accepted."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with closing(self._request()) as connection:
                response = connection.getresponse()
                response.read()
                if response.status == 200:
                    return
            time.sleep(0.1)  # 503 while the request is being processed, and says 1 s
        raise AssertionError("a request of globex was not accepted")

    def _request(self):
        request = ExportTraceServiceRequest()
        spans = request.resource_spans.add().scope_spans.add().spans
        for number in range(SPANS):
            spans.add(trace_id=b"g" * 16, span_id=(FIRST_OF_GLOBEX + self.sent + number).to_bytes(8), name="globex")
        headers = {"content-type": "application/x-protobuf", "x-api-key": self.api_key}
        headers["idempotency-key"] = str(self.sent)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request("POST", "/v1/traces", request.SerializeToString(), headers)
        return connection


class SealedTrial(Trial):
    """Load → sender → wire → collector → backend."""

    def __init__(self, folder, *, seed):
        super().__init__(folder, seed=seed, rate=RATE, faults=False)
        self.collector_port, wire = free_port(), free_port()
        self.wire = Child("tests.chaos.wire", port=wire, to=self.collector_port, seed=seed)
        key = new_keys(folder / "opening-keys.json")
        signing = generate_key()
        (folder / "statements.pem").write_bytes(private_pem(signing))
        self.public = public_text(signing)
        with Tenants(f"sqlite:///{folder}/control.db", folder / "pepper") as tenants:
            keys = {tenant: tenants.add(tenant, "enterprise") for tenant in TENANTS}
        self.globex = Globex(self.collector_port, keys["globex"])
        known = {**keys, "folder": folder, "sink": self._settings["sinks"][0], "wire": wire, **key}
        configs = {"sender": SENDER.format(port=self.port, **known)}
        configs["collector"] = COLLECTOR.format(port=self.collector_port, **known)
        self.agents = {name: Agent(text, folder, name=name, metrics=True) for name, text in configs.items()}
        self.deaths = dict.fromkeys(self.agents, 0)

    def __enter__(self):
        super().__enter__()
        self.wire.__enter__()
        for name in ("collector", "sender"):
            self.agents[name].__enter__()
        return self

    def __exit__(self, *error):
        for agent in self.agents.values():
            agent.close()
        self.wire.__exit__()
        super().__exit__(*error)

    def kill_one(self, name):
        """Kill one of the agents and start it again; for the collector, an hour later."""
        old = self.agents[name]
        if name == "collector":
            self.globex.send()
        old.signal(signal.SIGKILL)
        old.close()
        self.deaths[name] += 1
        self.start_again(name)
        if name == "collector":
            self.globex.finish()

    def start_again(self, name):
        """Start an agent that has ended."""
        old = self.agents[name]
        if name == "collector":
            an_hour_passes(self.folder)
        self.agents[name] = Agent(old.file.read_text(), self.folder, name=name, metrics=True)
        self.agents[name].__enter__()

    def settle_all(self, seconds=180.0):
        """Let the load rest and the wire be quiet, and wait until no agent holds anything; return their ledgers."""
        self.load.ask("rest")
        self.wire.ask("set", quiet=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ledgers = {name: ledger(agent) for name, agent in self.agents.items()}
            if not any(each["in_flight"] for each in ledgers.values()):
                break
            time.sleep(0.1)  # both ledgers change without an event
        return ledgers

    def statements(self):
        """Stop the collector; return the statements of each tenant, up to the last item."""
        for _ in range(2):  # the second start makes the last ones
            assert self.agents["collector"].stop() == 0
            self.agents["collector"].close()
            self.start_again("collector")
        assert self.agents["collector"].stop() == 0
        return {tenant: texts_of(self.folder, tenant) for tenant in TENANTS}

    def arrived(self):
        """Return the number of different spans that the backend has."""
        return sum(1 for times in (self.folder / "acked").read_bytes() if times)


@pytest.mark.chaos
def test_every_acknowledged_span_arrives_and_none_is_processed_twice(tmp_path, seconds, seed, tell):
    chance = random.Random(seed)
    with SealedTrial(tmp_path, seed=seed) as trial:
        trial.load.ask("go")
        end = time.monotonic() + seconds
        while time.monotonic() < end or min(trial.deaths.values()) < DEATHS:
            time.sleep(chance.uniform(*LIFE_SECONDS))  # the life of both until the next kill
            early = [name for name, deaths in trial.deaths.items() if deaths < DEATHS]
            trial.kill_one(chance.choice(early or [*trial.deaths]))
        ledgers = trial.settle_all()
        verdict: Verdict = trial.verdict()
        wire = trial.wire.ask("counts")
        arrived = trial.arrived()
        statements = trial.statements()
    tell(f"sealed, {trial.deaths} kills, wire {wire}: {verdict}; ledgers {ledgers}")
    assert wire["done"]["flipped"]
    assert wire["answers"].get("200 again")
    assert verdict.acked > 1000
    assert verdict.missing == []
    for name, sums in ledgers.items():
        assert sums["in_flight"] == 0, name
        assert sums["dropped"] == sums["dead_letter"] == 0, name
    # Each span in the backend was accepted by the collector once: a message processed twice would count twice.
    assert ledgers["collector"]["accepted"] == arrived
    sums = check_statements(tmp_path, statements, trial.public)
    globex = trial.globex.sent
    assert sums == {"acme": (arrived - globex, arrived - globex), "globex": (globex, globex)}


def check_statements(folder, statements, public):
    """Verify the statements of each tenant, and that every changed copy is found; return accepted and delivered."""
    keys, sums = {key_id(public): public}, {}
    for tenant, texts in statements.items():
        last = len(texts)
        assert last > 2, tenant
        file = folder / f"{tenant}.txt"
        file.write_text("\n".join(texts))
        command = [Path(sys.executable).with_name("otelwp-agent"), "statement", "verify", file, "--key", public]
        done = subprocess.run([*command, "--last", str(last)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

        def verified(lines, last=last):
            return verify_chains([(f"line {number}", each) for number, each in enumerate(lines)], keys, last=last)

        (chain,) = verified(texts).chains
        figures = [each.statement.pipelines["traces"] for each in chain.statements if each.statement.pipelines]
        sums[tenant] = sum(each.accepted for each in figures), sum(each.delivered for each in figures)
        assert figures[-1].closing == 0
        assert all(each.pipelines for one in chain.statements for each in one.statement.interruptions)
        others = next(other for name, other in statements.items() if name != tenant)
        for what, lines in tampered(texts, others):
            assert verified(lines).problems, (tenant, what)
    return sums
