"""Our own metrics beside the real Collector's, for the same pipelines and load: dashboards for one fit both."""

import http.client
import re

import pytest

from tests.e2e import otlp
from tests.interop.collector import Collector
from tests.interop.process import eventually
from tests.kit.agent import Agent, free_port, get

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("the_collector")]

CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{grpc}'}}, http: {{endpoint: '127.0.0.1:{http}'}}}}}}
  otlp/refused: {{protocols: {{http: {{endpoint: '127.0.0.1:{refused}'}}}}}}
  otlp/dead: {{protocols: {{http: {{endpoint: '127.0.0.1:{dead}'}}}}}}
  otlp/full: {{protocols: {{http: {{endpoint: '127.0.0.1:{full}'}}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 1000}}
  memory_limiter/none: {{check_interval: 10ms, limit_mib: 1, spike_limit_mib: 0}}
  probabilistic_sampler: {{sampling_percentage: 50, mode: hash_seed}}
  batch: {{timeout: 10ms, send_batch_size: 4}}
  batch/slow: {{timeout: 10ms}}
exporters:
  otlp: {{endpoint: '127.0.0.1:{sink}', tls: {{insecure: true}}}}
  otlp/dead:
    endpoint: '127.0.0.1:{nobody}'
    tls: {{insecure: true}}
    timeout: 1s
    retry_on_failure: {{enabled: false}}
  otlp/full:
    endpoint: '127.0.0.1:{nobody}'
    tls: {{insecure: true}}
    sending_queue: {{queue_size: 1, num_consumers: 1}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter, probabilistic_sampler, batch], exporters: [otlp]}}
    metrics: {{receivers: [otlp], processors: [memory_limiter, batch/slow], exporters: [otlp]}}
    logs: {{receivers: [otlp], processors: [memory_limiter, probabilistic_sampler, batch], exporters: [otlp]}}
    traces/refused: &refused {{receivers: [otlp/refused], processors: [memory_limiter/none], exporters: [otlp/dead]}}
    metrics/refused: *refused
    logs/refused: *refused
    traces/dead: &dead {{receivers: [otlp/dead], exporters: [otlp/dead]}}
    metrics/dead: *dead
    logs/dead: *dead
    traces/full: &full {{receivers: [otlp/full], exporters: [otlp/full]}}
    metrics/full: *full
    logs/full: *full
"""
SINK = """
receivers:
  otlp: {protocols: {grpc: {endpoint: '127.0.0.1:0'}}}
exporters:
  debug: {verbosity: basic}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [debug]}
    metrics: {receivers: [otlp], exporters: [debug]}
    logs: {receivers: [otlp], exporters: [debug]}
"""

ADDRESS = {"server_address", "server_port"}
LABELS = {
    r"otelcol_exporter_(sent|send_failed)_.*": (
        ADDRESS | {"error_type", "error_permanent"},
        "the Collector's level `detailed` names the destination and the kind of error; the agent logs them",
    ),
    r"otelcol_processor_probabilistic_sampler_count_.*": (
        {"processor"},
        "the Collector adds up two samplers; the agent has a number for each",
    ),
}
"""Labels that only one of the two has, by the metrics' names."""

ONLY_OURS = {
    "otelcol_processor_probabilistic_sampler_count_spans_processed_total": (
        "the name since 0.161; the tested version is older"
    ),
}
ONLY_THEIRS = {
    r"otelcol_process_runtime_(heap_alloc|total_alloc)_bytes": "Go's heap; for Python, see `otelwp_python_…`",
    r"otelcol_exporter_queue_batch_send_size(_bytes)?": "the queue does not batch by default",
    r"otelcol_processor_(incoming|outgoing)_items": "the ledger counts by pipeline: `otelwp_pipeline_…`",
    r"otelcol_processor_internal_duration": "measuring it would take longer than most processors do",
    r"otelcol_receiver_failed_.*": "such requests are refused: `otelwp_receiver_refused_requests` has the reason",
}
"""Differences, each with its reason: docs/topics/interop.md repeats them."""


@pytest.fixture(scope="module")
def both(the_collector, tmp_path_factory):
    """The metrics of the agent and of the Collector, after the same happened to both."""
    folder = tmp_path_factory.mktemp("metrics")
    with Agent(SINK, folder, name="sink") as sink:
        shared = {"sink": sink.port("grpc"), "nobody": free_port()}
        theirs = {name: free_port() for name in ("grpc", "http", "refused", "dead", "full")}
        with (
            Collector(CONFIG.format(**theirs, **shared), folder) as collector,
            Agent(CONFIG.format(**dict.fromkeys(theirs, 0), **shared), folder, metrics=True) as agent,
        ):
            ours = {name: agent.port("http", f"otlp/{name}") for name in ("refused", "dead", "full")}
            ours |= {name: agent.port(name) for name in ("grpc", "http")}

            def expose():
                return families(get(agent.metrics_port, "/metrics")[1]), families(collector.metrics())

            for ports in (ours, theirs):
                happen(ports)
            yield eventually(expose, lambda found: all(map(complete, found)))


def happen(ports):
    """Let both protocols, a limiter that refuses, an exporter that fails and a queue that is full take everything."""
    for signal in otlp.SIGNALS:
        made = otlp.make(signal, "metrics")
        body = otlp.SIGNALS[signal].encode(made).SerializeToString()
        for protocol in ("grpc", "http"):
            assert otlp.export(signal, protocol, ports[protocol], made)
        for name in ("refused", "dead", *["full"] * 4):
            post(ports[name], f"/v1/{signal}", body)


def post(port, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, body, {"content-type": "application/x-protobuf"})
        connection.getresponse().read()
    finally:
        connection.close()


def complete(found):
    """Tell whether what takes its time has happened."""
    wanted = ("sent_spans", "sent_metric_points", "sent_log_records", "send_failed_spans", "enqueue_failed_spans")
    return all(any(found.get(f"otelcol_exporter_{name}", ("", {}))[1].values()) for name in wanted)


def families(text):
    """Return each metric that has values: its type, and its values by the names of their labels."""
    kinds = dict(re.findall(r"^# TYPE (otelcol_\S+) (\S+)$", text, re.MULTILINE))
    found = {}
    for sample, labels, value in re.findall(r"^(otelcol_\w+)(\{.*\})? (\S+)$", text, re.MULTILINE):
        name = sample if sample in kinds else re.sub(r"_(bucket|sum|count)$", "", sample)
        names = frozenset(re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', labels)) - {"le"}
        cells = found.setdefault(name, (kinds[name], {}))[1]
        cells[names] = cells.get(names, 0) + float(value)
    return found


def test_a_metric_of_ours_is_one_of_theirs(both):
    ours, theirs = both
    strange = {name for name in ours.keys() - theirs.keys() if any(ours[name][1].values())}
    assert strange == set(ONLY_OURS)


def test_it_has_the_same_type(both):
    ours, theirs = both
    common = ours.keys() & theirs.keys()
    assert len(common) > 30
    assert {name: ours[name][0] for name in common} == {name: theirs[name][0] for name in common}


def test_it_has_the_same_labels(both):
    ours, theirs = both
    different = {}
    for name in sorted(ours.keys() & theirs.keys()):
        spare = set().union(*(labels for pattern, (labels, _) in LABELS.items() if re.fullmatch(pattern, name)))
        own, other = ({frozenset(labels - spare) for labels in each[name][1]} for each in (ours, theirs))
        if own != other:
            different[name] = (own, other)
    assert different == {}


def test_a_metric_of_theirs_is_one_of_ours_or_has_its_reason_not_to_be(both):
    ours, theirs = both
    missing = theirs.keys() - ours.keys()
    assert {name for name in missing if not any(re.fullmatch(pattern, name) for pattern in ONLY_THEIRS)} == set()


def test_every_difference_that_is_listed_is_there(both):
    ours, theirs = both
    for pattern in ONLY_THEIRS:
        assert any(re.fullmatch(pattern, name) for name in theirs.keys() - ours.keys()), pattern
    for pattern, (labels, _) in LABELS.items():
        names = [name for name in ours.keys() & theirs.keys() if re.fullmatch(pattern, name)]
        assert any(labels & (set().union(*ours[name][1]) ^ set().union(*theirs[name][1])) for name in names), pattern


@pytest.mark.parametrize("signal", ["spans", "metric_points", "log_records"])
def test_both_count_the_same(both, signal):
    ours, theirs = both
    for name in (f"otelcol_receiver_accepted_{signal}", f"otelcol_processor_memory_limiter_accepted_{signal}"):
        assert sum(ours[name][1].values()) == sum(theirs[name][1].values()), name
