"""Our sampler beside the real Collector's: from the same traces both keep the same, and mark them alike.

That is what makes sampling consistent: an agent and a Collector, one behind the other, agree.
"""

import random

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.interop.collector import Collector
from tests.interop.process import eventually
from tests.interop.test_collector import messages
from tests.kit.agent import Agent, free_port, post

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("the_collector")]

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}
processors:
  probabilistic_sampler: {settings}
exporters:
  file: {{path: {folder}/{name}.pb, format: proto, flush_interval: 50ms}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [probabilistic_sampler], exporters: [file]}}
"""
TRACES = 2000
LAST = "the last one"
"""A span that everybody keeps, for its priority: when it has arrived, so have the others.

The Collector marks it `th:0`, which would have it count for one span; we take the mark off, as it says nothing then.
"""


@pytest.mark.parametrize(
    "settings",
    [
        "{mode: proportional, sampling_percentage: 25}",
        "{mode: proportional, sampling_percentage: 33.3, sampling_precision: 6}",
        "{mode: equalizing, sampling_percentage: 12.5}",
        "{mode: hash_seed, sampling_percentage: 25}",
        "{mode: hash_seed, hash_seed: 22, sampling_percentage: 15.3}",
        "{sampling_percentage: 60, hash_seed: 22}",
    ],
)
def test_both_keep_the_same_and_mark_it_alike(settings, tmp_path):
    port = free_port()
    theirs = CONFIG.format(port=port, settings=settings, folder=tmp_path, name="theirs")
    ours = CONFIG.format(port=0, settings=settings, folder=tmp_path, name="ours")
    with Collector(theirs, tmp_path), Agent(ours, tmp_path) as agent:
        for body in bodies():
            assert post(port, "/v1/traces", body) == 200
            assert post(agent.port(), "/v1/traces", body) == 200
        kept = {
            name: eventually(lambda name=name: spans(tmp_path / f"{name}.pb"), whole) for name in ("ours", "theirs")
        }
    assert [each.pop(LAST) is not None for each in kept.values()] == [True, True]
    assert 0 < len(kept["theirs"]) < TRACES
    assert kept["ours"] == kept["theirs"]


def bodies():
    """Yield requests of many traces: without a trace state, with one, and with another sampler's mark in it."""
    draw = random.Random(7)
    states = ("", "vendor=x", "ot=th:8", "ot=th:c;a:b,vendor=x", "ot=rv:ffffffffffffff", "ot=rv:00000000000001")
    request = ExportTraceServiceRequest()
    found = request.resource_spans.add().scope_spans.add().spans
    for number in range(TRACES):
        found.add(
            trace_id=draw.randbytes(16), span_id=draw.randbytes(8), name=str(number), trace_state=draw.choice(states)
        )
    yield request.SerializeToString()
    del found[:]
    last = found.add(trace_id=draw.randbytes(16), span_id=draw.randbytes(8), name=LAST)
    last.attributes.add(key="sampling.priority").value.int_value = 1
    yield request.SerializeToString()


def spans(path):
    """Return the spans in a file: trace state by name."""
    found = {}
    for request in messages("traces", path):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                found |= {span.name: unordered(span.trace_state) for span in scope.spans}
    return found


def unordered(state):
    """Return what a trace state says: the order within `ot` says nothing."""
    return [sorted(each.removeprefix("ot=").split(";")) for each in state.split(",")]


def whole(found):
    return LAST in found
