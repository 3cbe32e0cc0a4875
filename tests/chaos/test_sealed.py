"""Sealed requests between two agents that are killed at random, over a wire that changes bytes and repeats requests."""

import random
import signal
import time

import pytest

from tests.chaos.child import Child
from tests.chaos.trial import Trial, Verdict, ledger
from tests.kit.agent import Agent, free_port
from tests.kit.managed_site import new_keys

RATE = 200.0
"""Requests a second."""
LIFE_SECONDS = (0.5, 2.0)
"""How long both agents live before one of them is killed."""

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
receivers:
  otlp:
    sealed: {{keys: {folder}/opening-keys.json}}
    protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}
exporters:
  otlp_http:
    endpoint: http://127.0.0.1:{sink}
    compression: none
    timeout: 1s
    retry_on_failure: {{initial_interval: 50ms, max_interval: 500ms}}
service:
  journal: {{directory: '{folder}/collector-journal'}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
"""


class SealedTrial(Trial):
    """Load → sender → wire → collector → backend."""

    def __init__(self, folder, *, seed):
        super().__init__(folder, seed=seed, rate=RATE, faults=False)
        self.collector_port, wire = free_port(), free_port()
        self.wire = Child("tests.chaos.wire", port=wire, to=self.collector_port, seed=seed)
        key = new_keys(folder / "opening-keys.json")
        known = {"folder": folder, "sink": self._settings["sinks"][0], "wire": wire, **key}
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
        """Kill one of the agents and start it again."""
        old = self.agents[name]
        old.signal(signal.SIGKILL)
        old.close()
        self.deaths[name] += 1
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

    def arrived(self):
        """Return the number of different spans that the backend has."""
        return sum(1 for times in (self.folder / "acked").read_bytes() if times)


@pytest.mark.chaos
def test_every_acknowledged_span_arrives_and_none_is_processed_twice(tmp_path, seconds, seed, tell):
    chance = random.Random(seed)
    with SealedTrial(tmp_path, seed=seed) as trial:
        trial.load.ask("go")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(chance.uniform(*LIFE_SECONDS))  # the life of both until the next kill
            trial.kill_one(chance.choice(["sender", "collector"]))
        ledgers = trial.settle_all()
        verdict: Verdict = trial.verdict()
        wire = trial.wire.ask("counts")
        arrived = trial.arrived()
    tell(f"sealed, {trial.deaths} kills, wire {wire}: {verdict}; ledgers {ledgers}")
    assert all(trial.deaths.values())
    assert wire["done"]["flipped"]
    assert wire["answers"].get("200 again")
    assert verdict.acked > 1000
    assert verdict.missing == []
    for name, sums in ledgers.items():
        assert sums["in_flight"] == 0, name
        assert sums["dropped"] == sums["dead_letter"] == 0, name
    # Each span in the backend was accepted by the collector once: a message processed twice would count twice.
    assert ledgers["collector"]["accepted"] == arrived
