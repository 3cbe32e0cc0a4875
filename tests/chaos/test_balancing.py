"""Two agents divide traces among collectors that sample, while one collector joins and one is killed."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from contextlib import ExitStack

from tests.kit.agent import PATIENCE, Agent, free_port

SPANS = 4
STEADY = 60
"""Traces of each quiet period."""
FRONT = """
receivers:
  otlp: {{acknowledge: delivered, protocols: {{http: {{endpoint: "127.0.0.1:0"}}}}}}
exporters:
  loadbalancing:
    protocol:
      otlp:
        tls: {{insecure: true}}
        retry_on_failure:
          initial_interval: 50ms
          circuit_breaker: {{failures: 1, open_time: 200ms, max_open_time: 500ms}}
    resolver: {{static: {{hostnames: {backends}}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [loadbalancing]}}
"""
SAMPLER = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}
processors:
  adaptive_sampling: {{target: {{spans_per_second: 1000000}}, decision_wait: 500ms, max_wait: 3s}}
exporters:
  file: {{path: {folder}/traces.jsonl, append: true}}
service:
  journal: {{directory: {folder}/journal}}
  pipelines:
    traces: {{receivers: [otlp], processors: [adaptive_sampling], exporters: [file]}}
"""


class Traffic:
    """Sends one half of each trace to each of two agents, until `stop`; each request is answered when delivered."""

    def __init__(self, ports):
        self.ports = ports
        self.quiet = 0
        """Number of the current quiet period, in which no collector joins or leaves; 0 between two of them."""
        self.done = {True: [], False: []}
        """Ids of delivered traces: those that were sent within one quiet period, and the others."""
        self.errors = []
        self._number = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._stopped.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def wait_for(self, quiet, more):
        """Wait until `more` traces have been delivered."""
        wanted, end = len(self.done[quiet]) + more, time.monotonic() + PATIENCE
        while len(self.done[quiet]) < wanted:
            assert time.monotonic() < end, f"{len(self.done[quiet])} of {wanted} traces were delivered"
            assert not self.errors, self.errors
            time.sleep(0.02)  # the threads send meanwhile

    def _run(self):
        try:
            while not self._stopped.is_set():
                with self._lock:
                    self._number += 1
                    trace = f"{self._number * 0x9E3779B97F4A7C15 % 2**64:016x}{self._number:016x}"
                quiet = self.quiet
                for half, port in enumerate(self.ports):
                    self._send(port, trace, range(half * SPANS // 2, (half + 1) * SPANS // 2))
                # A trace whose halves were sent before and after a kill may end in the next quiet period: not quiet.
                self.done[quiet > 0 and quiet == self.quiet].append(trace)
        except Exception as error:  # noqa: BLE001 - the test fails with it
            self.errors.append(error)

    def _send(self, port, trace, numbers):
        spans = [
            {
                "traceId": trace,
                "spanId": f"{number + 1:016x}",
                "parentSpanId": f"{number:016x}" if number else "",
                "name": "GET /",
                "startTimeUnixNano": "1",
                "endTimeUnixNano": "2",
            }
            for number in numbers
        ]
        body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
        head = {"content-type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/traces", body, head)
        while True:
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                    assert answer.status == 200
                    return
            except urllib.error.HTTPError as error:
                if error.code not in {429, 503}:
                    raise
                time.sleep(0.05)  # the agent asks for a retry


def spans_in(folder):
    """Return the spans of each trace that a collector has written, kept by its sampler."""
    found = defaultdict(set)
    for line in (folder / "traces.jsonl").read_text().splitlines():
        for group in json.loads(line)["resourceSpans"]:
            for scope in group["scopeSpans"]:
                for span in scope["spans"]:
                    found[span["traceId"]].add(span["spanId"])
    return found


def test_traces_stay_whole_while_a_collector_joins_and_one_is_killed(tmp_path, tell):
    ports = [free_port() for _ in range(3)]
    folders = [tmp_path / f"sampler{number}" for number in range(3)]
    for folder in folders:
        folder.mkdir()
    configs = [SAMPLER.format(port=port, folder=folder) for port, folder in zip(ports, folders, strict=True)]
    addresses = [f"127.0.0.1:{port}" for port in ports]
    front = FRONT.format(backends=json.dumps(addresses))
    with ExitStack() as stack:
        samplers = [
            stack.enter_context(Agent(config, folder)) for config, folder in zip(configs[:2], folders, strict=False)
        ]
        fronts = [stack.enter_context(Agent(front, tmp_path, name=f"front{number}")) for number in range(2)]
        traffic = Traffic([each.port() for each in fronts])
        for each in fronts:
            each.wait_for("circuit breaker opened", backend=addresses[2])
        traffic.quiet = 1
        traffic.wait_for(quiet=True, more=STEADY)

        traffic.quiet = 0
        samplers.append(stack.enter_context(Agent(configs[2], folders[2])))
        for each in fronts:
            each.wait_for("circuit breaker closed", backend=addresses[2])
        traffic.quiet = 2
        traffic.wait_for(quiet=True, more=STEADY)

        traffic.quiet = 0
        samplers[0].close()  # SIGKILL
        for each in fronts:
            each.wait_for("circuit breaker opened", backend=addresses[0])
        traffic.quiet = 3
        traffic.wait_for(quiet=True, more=STEADY)

        traffic.stop()
        assert not traffic.errors
        assert [each.stop() for each in fronts] == [0, 0]
        samplers[0] = stack.enter_context(Agent(configs[0], folders[0], metrics=True))  # it finds its journal
        samplers[0].wait_for_metric("otelwp_journal_entries", 0)
        assert [each.stop() for each in samplers] == [0, 0, 0]

    written = [spans_in(folder) for folder in folders]
    every = traffic.done[True] + traffic.done[False]
    missing = [trace for trace in every if len(set().union(*(each[trace] for each in written))) < SPANS]
    torn = {trace for trace in every if max(len(each[trace]) for each in written) < SPANS}
    shares = [sum(len(each[trace]) == SPANS for trace in every) for each in written]
    tell(
        f"chaos, load balancing: {len(every)} traces, whole at the collectors: {shares}; torn: {len(torn)} of the "
        f"{len(traffic.done[False])} that were sent while a collector joined or was killed"
    )
    assert not missing
    assert not torn & {*traffic.done[True]}
    assert min(shares) > 0
