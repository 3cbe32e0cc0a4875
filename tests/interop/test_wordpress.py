"""WordPress pages in Jaeger and in Zipkin: as the founding plugin sends them, and as ours does.

What a plugin sends is written down on its way to the agent; what the query APIs of the two show is compared with that.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.jaeger import Jaeger, Jaeger1
from tests.interop.pages import FOUNDING_PLUGIN, LABORATORY, OUR_PLUGIN, PAGES, Tee, posted
from tests.interop.process import eventually
from tests.interop.spans import KINDS, failed, spans, values
from tests.interop.wordpress import WordPress
from tests.interop.zipkin import Zipkin
from tests.kit.agent import Agent

pytestmark = pytest.mark.interop

CONFIG = """
receivers:
  jaeger_json: {{endpoint: '127.0.0.1:0'}}
  datagram: {{endpoint: 'unix://{folder}/agent.dgram'}}
  jaeger_json/named: {{endpoint: '127.0.0.1:0'}}
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
  otlp/unix: {{protocols: {{http: {{endpoint: 'unix://{folder}/otlp.sock'}}}}}}
processors:
  wordpress:
  batch: {{timeout: 50ms}}
exporters:
  jaeger: {{endpoint: '127.0.0.1:{jaeger}'}}
  zipkin: {{endpoint: 'http://127.0.0.1:{zipkin}/api/v2/spans'}}
service:
  pipelines:
    traces:
      receivers: [jaeger_json, datagram, otlp, otlp/unix]
      processors: [batch]
      exporters: [jaeger, zipkin]
    traces/named:
      receivers: [jaeger_json/named]
      processors: [wordpress, batch]
      exporters: [jaeger, zipkin]
"""
EXAMPLE = Path(__file__).parents[2] / "examples/wordpress.yaml"


@dataclass
class Stage:
    """Everything that plays along."""

    wordpress: WordPress
    agent: Agent
    tee: Tee
    jaeger: Jaeger
    zipkin: Zipkin


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage")
    with WordPress() as wordpress, Jaeger1(folder) as jaeger, Zipkin(folder) as zipkin:
        own = wordpress.folder  # its path is short enough for sockets
        config = CONFIG.format(folder=own, jaeger=jaeger.ports["otlp_grpc"], zipkin=zipkin.port)
        with Agent(config, folder) as agent, Tee(own / "tee.dgram", own / "agent.dgram") as tee:
            wordpress.add_must_use(LABORATORY.name, LABORATORY.read_text())
            wordpress.add(FOUNDING_PLUGIN, activate=False)
            wordpress.add(OUR_PLUGIN, activate=False)
            yield Stage(wordpress, agent, tee, jaeger, zipkin)


@pytest.fixture(scope="module")
def founding(stage):
    """The stage with the founding plugin."""
    stage.wordpress.option("wpotel_sampling_rate", 1)
    stage.wordpress.option("wpotel_endpoint", f"http://127.0.0.1:{stage.agent.port('http', 'jaeger_json')}/api/traces")
    stage.wordpress.activate("wpotel")
    yield stage
    stage.wordpress.deactivate("wpotel")


@pytest.mark.parametrize("page", list(PAGES))
def test_a_page_that_the_founding_plugin_sends(founding, page):
    before = len(posted(founding.wordpress))
    PAGES[page].visit(founding.wordpress)
    bodies = eventually(lambda: of_page(posted(founding.wordpress)[before:], PAGES[page].path))
    assert len(bodies) == 1
    (sent,) = bodies[0]["data"][0]["spans"]
    tags = {tag["key"]: tag["value"] for tag in sent["tags"]}
    assert tags["http.status_code"] == PAGES[page].status
    failed = PAGES[page].status >= 500

    (span,) = eventually(lambda: founding.jaeger.trace(sent["traceID"]))
    assert (span.trace_id, span.span_id, span.parent) == (sent["traceID"], sent["spanID"], "")
    assert (span.service, span.name) == ("127.0.0.1", "wordpress.request")
    assert abs(span.start - sent["startTime"]) <= 1
    assert abs(span.duration - sent["duration"]) <= 1
    assert tags.items() <= span.tags.items()
    assert span.tags["span.kind"] == "server"
    assert span.tags.get("error", False) is failed
    assert span.process_tags["environment"] == "staging"

    (span,) = eventually(lambda: founding.zipkin.trace(sent["traceID"]))
    assert (span["traceId"], span["id"], span.get("parentId")) == (sent["traceID"], sent["spanID"], None)
    assert (span["localEndpoint"]["serviceName"], span["name"]) == ("127.0.0.1", "wordpress.request")
    assert abs(span["timestamp"] - sent["startTime"]) <= 1
    assert abs(span["duration"] - sent["duration"]) <= 1
    assert {key: text(value) for key, value in tags.items()}.items() <= span["tags"].items()
    assert span["kind"] == "SERVER"
    assert ("error" in span["tags"]) is failed


@pytest.mark.parametrize("page", list(PAGES))
def test_a_page_that_the_founding_plugin_sends_gets_a_name(founding, page):
    port = founding.agent.port("http", "jaeger_json/named")
    founding.wordpress.option("wpotel_endpoint", f"http://127.0.0.1:{port}/api/traces")
    before = len(posted(founding.wordpress))
    PAGES[page].visit(founding.wordpress)
    bodies = eventually(lambda: of_page(posted(founding.wordpress)[before:], PAGES[page].path))
    (sent,) = bodies[0]["data"][0]["spans"]
    (span,) = eventually(lambda: founding.jaeger.trace(sent["traceID"]))
    method = "GET" if PAGES[page].form is None else "POST"
    assert span.name == f"{method} {PAGES[page].route}"
    assert span.tags["http.route"] == PAGES[page].route
    assert "hello" not in span.tags["http.url"] or page == "post"
    assert "wp.user_id" not in span.tags
    (span,) = eventually(lambda: founding.zipkin.trace(sent["traceID"]))
    assert span["name"] == f"{method} {PAGES[page].route}".lower()


def of_page(bodies, path):
    """Return those of the founding plugin's bodies that are about a page: others may ask WordPress meanwhile."""
    found = []
    for body in bodies:
        tags = body["data"][0]["spans"][0]["tags"] if "data" in body else []
        if any(tag["key"] == "http.url" and tag["value"].endswith(path) for tag in tags):
            found.append(body)
    return found


def text(value):
    """Return a value as Zipkin has it, which knows text alone."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.fixture(scope="module")
def ours(founding):
    """The stage with our plugin, which has a unix datagram socket to send to, and with another that ends requests."""
    stage = founding
    settings = {
        "sampling_rate": 1,
        "endpoints": [f"unixgram://{stage.wordpress.folder}/tee.dgram"],
        "agent_url": "",
        "trusted_proxies": ["127.0.0.1"],
    }
    stage.wordpress.activate("otelwp")
    stage.wordpress.option("otelwp_settings", settings)
    yield stage
    stage.wordpress.deactivate("otelwp")


@pytest.mark.parametrize("page", list(PAGES))
def test_a_page_that_our_plugin_sends(ours, page):
    caller = {"trace": f"{list(PAGES).index(page) + 1:032x}", "span": f"{0xABC:016x}"}
    before = len(ours.tee.datagrams)
    PAGES[page].visit(ours.wordpress, {"traceparent": f"00-{caller['trace']}-{caller['span']}-01"})
    # A page that asks its own site makes two messages of one trace; the one with the root is the last.
    sent, resource = eventually(
        lambda: of_trace(ours.tee.datagrams[before:], caller["trace"]),
        lambda found: any(span.parent_span_id.hex() == caller["span"] for span in found[0]),
    )
    assert resource["wordpress.site.host"] == f"127.0.0.1:{ours.wordpress.port}"
    ids = {span.span_id.hex() for span in sent}
    assert len(ids) == len(sent) > 1

    found = eventually(lambda: ours.jaeger.trace(caller["trace"]), lambda found: len(found) >= len(ids))
    shown = {span.span_id: span for span in found}
    assert shown.keys() == ids
    for span in sent:
        found = shown[span.span_id.hex()]
        assert found.parent == span.parent_span_id.hex()
        assert (found.service, found.name) == (resource["service.name"], span.name)
        assert abs(found.start - start(span)) <= 1
        assert abs(found.duration - duration(span)) <= 1
        assert found.tags["span.kind"] == KINDS[span.kind]
        assert found.tags.get("error", False) is failed(span)
        assert values(span.attributes).items() <= found.tags.items()
        assert [log["event"] for log in found.logs] == [event.name for event in span.events]
    (root,) = (span for span in sent if span.parent_span_id.hex() == caller["span"])
    assert values(root.attributes)["http.response.status_code"] == PAGES[page].status
    assert failed(root) is (PAGES[page].status >= 500)
    route = PAGES[page].route_within or PAGES[page].route
    assert root.name == f"{'GET' if PAGES[page].form is None else 'POST'} {route}"
    if PAGES[page].event:
        name, value = PAGES[page].event
        logs = [log for log in shown[root.span_id.hex()].logs if log["event"] == name]
        assert value in logs[0].values()

    found = eventually(lambda: ours.zipkin.trace(caller["trace"]), lambda found: len(found or ()) >= len(ids))
    shown = {span["id"]: span for span in found}
    assert shown.keys() == ids
    for span in sent:
        found = shown[span.span_id.hex()]
        assert found["parentId"] == span.parent_span_id.hex()
        assert (found["localEndpoint"]["serviceName"], found["name"]) == (resource["service.name"], span.name.lower())
        assert abs(found["timestamp"] - start(span)) <= 1
        assert abs(found["duration"] - duration(span)) <= 1
        assert found.get("kind", "INTERNAL") == KINDS[span.kind].upper()
        assert ("error" in found["tags"]) is failed(span)
        assert {key: text(value) for key, value in values(span.attributes).items()}.items() <= found["tags"].items()
        events = sorted(each["value"].partition(":")[0].strip('"') for each in found.get("annotations", ()))
        assert events == sorted(event.name for event in span.events)
    if failed(root) and PAGES[page].event:
        assert shown[root.span_id.hex()]["tags"]["error"] == PAGES[page].event[1]


@pytest.mark.parametrize("transport", ["datagram", "unix", "http"])
def test_our_plugin_takes_the_first_way_that_works(ours, transport):
    folder = ours.wordpress.folder
    ways = {
        "datagram": f"unixgram://{folder}/agent.dgram",
        "unix": f"unix://{folder}/otlp.sock",
        "http": f"http://127.0.0.1:{ours.agent.port()}",
    }
    endpoints = [f"unixgram://{folder}/nobody.dgram", *list(ways.values())[list(ways).index(transport) :]]
    settings = {"sampling_rate": 1, "endpoints": endpoints, "agent_url": "", "trusted_proxies": ["127.0.0.1"]}
    ours.wordpress.option("otelwp_settings", settings)
    trace_id = f"{0xFFFF:016x}{list(ways).index(transport) + 1:016x}"
    PAGES["front"].visit(ours.wordpress, {"traceparent": f"00-{trace_id}-{0xABC:016x}-01"})
    shown = eventually(lambda: ours.jaeger.trace(trace_id))
    assert [span.name for span in shown if span.parent == f"{0xABC:016x}"] == ["GET front"]
    shown = eventually(lambda: ours.zipkin.trace(trace_id))
    assert [span["name"] for span in shown if span["parentId"] == f"{0xABC:016x}"] == ["get front"]


def test_the_example_takes_what_both_plugins_send(founding, ours, monkeypatch):
    wordpress = ours.wordpress
    sockets = wordpress.folder / "sockets"
    sockets.mkdir()
    monkeypatch.setenv("SOCKETS", str(sockets))
    monkeypatch.setenv("JAEGER", f"127.0.0.1:{ours.jaeger.ports['otlp_grpc']}")
    monkeypatch.setenv("ZIPKIN", f"http://127.0.0.1:{ours.zipkin.port}")
    config = re.sub(
        r"(endpoint: (?:\$\{env:LISTEN:-127\.0\.0\.1\}|127\.0\.0\.1)):\d+", r"\1:0", EXAMPLE.read_text("utf-8")
    )
    with Agent(config, wordpress.folder, name="example") as agent:
        port = agent.port("http", "jaeger_json")
        wordpress.option("wpotel_endpoint", f"http://127.0.0.1:{port}/api/traces")
        endpoints = [f"unixgram://{sockets}/datagram.sock"]
        wordpress.option(
            "otelwp_settings",
            {"sampling_rate": 1, "endpoints": endpoints, "agent_url": "", "trusted_proxies": ["127.0.0.1"]},
        )
        before = len(posted(wordpress))
        trace_id = f"{0xEEEE:032x}"
        PAGES["post"].visit(wordpress, {"traceparent": f"00-{trace_id}-{0xABC:016x}-01"})
        (body,) = eventually(lambda: of_page(posted(wordpress)[before:], PAGES["post"].path))
        of_founding = body["data"][0]["spans"][0]["traceID"]
        for shown in (ours.jaeger, ours.zipkin):
            assert eventually(lambda shown=shown: shown.trace(of_founding))
            assert len(eventually(lambda shown=shown: shown.trace(trace_id))) > 1


def of_trace(datagrams, trace_id):
    """Return the spans of a trace in our plugin's datagrams, and the attributes of their resource."""
    found = [pair for datagram in datagrams for pair in spans(datagram) if pair[0].trace_id.hex() == trace_id]
    return [span for span, _ in found], found[-1][1] if found else {}


def start(span):
    return span.start_time_unix_nano / 1000


def duration(span):
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1000
