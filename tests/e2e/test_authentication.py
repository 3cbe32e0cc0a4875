"""Two real agents: the first authenticates its senders, and the second adds the credential to what it sends."""

import base64
import http.client
import time
from contextlib import closing

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from tests.kit.agent import PATIENCE, Agent

SPANS = 4
BODY = Sample(spans_per_trace=SPANS, seed=1).make(Signal.TRACES, 1, 1_760_000_000_000_000_000)
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

GATE = """
extensions:
  bearertokenauth: {{filename: '{tokens}'}}
receivers:
  otlp:
    protocols:
      http: {{endpoint: '127.0.0.1:0', auth: {{authenticator: bearertokenauth}}}}
      grpc: {{endpoint: '127.0.0.1:0', auth: {{authenticator: bearertokenauth}}}}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{sink}'}}
service:
  tier: pro
  extensions: [bearertokenauth]
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}
"""

SIDECAR = """
extensions:
  bearertokenauth: {{filename: '{tokens}'}}
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{http}', auth: {{authenticator: bearertokenauth}}}}
  otlp_grpc: {{endpoint: 'http://127.0.0.1:{grpc}', auth: {{authenticator: bearertokenauth}}}}
service:
  tier: pro
  extensions: [bearertokenauth]
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http, otlp_grpc]}}}}
"""


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("right\n")
    return file


@pytest.fixture
def gate(sink, tokens, tmp_path):
    with Agent(GATE.format(sink=sink.server_port, tokens=tokens), tmp_path, metrics=True) as agent:
        yield agent


def post(port, token, body=BODY):
    headers = {"content-type": "application/x-protobuf"} | ({"authorization": token} if token else {})
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("POST", "/v1/traces", body, headers)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("www-authenticate")


def call(port, token, body=BODY):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        metadata = (("authorization", token),) if token else ()
        try:
            channel.unary_unary(EXPORT)(body, timeout=PATIENCE, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def wait_for_spans(sink, spans):
    end = time.monotonic() + PATIENCE
    while sink.spans < spans and time.monotonic() < end:
        time.sleep(0.02)  # the sink is a thread of this process without an event for each span
    assert sink.spans == spans


def test_only_the_right_token_passes_and_nothing_logs_it(gate, sink):
    http_port, grpc_port = gate.port("http"), gate.port("grpc")
    assert post(http_port, "Bearer right") == (200, None)
    assert call(grpc_port, "Bearer right") is grpc.StatusCode.OK
    for wrong in (None, "Bearer wrong-t0ken", "Basic right"):
        assert post(http_port, wrong) == (401, "Bearer")
        assert call(grpc_port, wrong) is grpc.StatusCode.UNAUTHENTICATED
    wait_for_spans(sink, 2 * SPANS)
    assert "wrong-t0ken" not in gate.output
    for transport in ("http", "grpc"):
        labels = {"receiver": "otlp", "transport": transport, "reason": "unauthenticated"}
        assert gate.metric("otelwp_receiver_refused_requests", **labels) == 3


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("token", ["right", "wrong"])
def test_a_real_sdk_is_accepted_or_gives_up_at_once(gate, sink, protocol, token):
    headers = {"authorization": f"Bearer {token}"}
    if protocol == "http":
        exporter = HttpExporter(f"http://127.0.0.1:{gate.port('http')}/v1/traces", headers=headers)
    else:
        exporter = GrpcExporter(f"127.0.0.1:{gate.port('grpc')}", insecure=True, headers=headers)
    results = []
    send = exporter.export
    exporter.export = lambda spans: results.append(send(spans)) or results[-1]
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("test").start_span("one").end()
    provider.shutdown()
    assert results == [SpanExportResult.SUCCESS if token == "right" else SpanExportResult.FAILURE]
    if token == "right":
        wait_for_spans(sink, 1)
    else:
        labels = {"receiver": "otlp", "transport": protocol, "reason": "unauthenticated"}
        assert gate.metric("otelwp_receiver_refused_requests", **labels) == 1, "it was not retried"


def test_exporters_add_the_token_and_send_again_with_the_new_one_after_a_rotation(gate, sink, tokens, tmp_path):
    own = tmp_path / "own"
    own.write_text("right\n")
    config = SIDECAR.format(http=gate.port("http"), grpc=gate.port("grpc"), tokens=own)
    with Agent(config, tmp_path, name="sidecar") as sidecar:
        assert post(sidecar.port("http"), None)[0] == 200
        wait_for_spans(sink, 2 * SPANS)
        tokens.write_text("newer\nright\n")
        gate.wait_for("file reloaded", tokens=2)
        own.write_text("newer\n")
        sidecar.wait_for("file reloaded", tokens=1)
        tokens.write_text("newer\n")
        gate.wait_for("file reloaded", tokens=1)
        assert post(gate.port("http"), "Bearer right")[0] == 401
        assert post(sidecar.port("http"), None)[0] == 200
        wait_for_spans(sink, 4 * SPANS)


def test_a_reload_that_removes_a_token_refuses_it_on_open_connections(gate, sink, tokens):
    del sink
    port = gate.port("http")
    headers = {"content-type": "application/x-protobuf", "authorization": "Bearer right"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:

        def status():
            connection.request("POST", "/v1/traces", BODY, headers)
            response = connection.getresponse()
            response.read()
            return response.status

        assert [status(), status()] == [200, 200]
        gate.write(gate.file.read_text().replace(f"filename: '{tokens}'", "token: other"))
        gate.reload()
        end = time.monotonic() + PATIENCE
        while (last := status()) != 401 and time.monotonic() < end:
            time.sleep(0.01)  # the replaced server answers until it has given up the connection
        assert last == 401


BASIC = """
extensions:
  basicauth: {{htpasswd: {{inline: 'shop:s3cret'}}}}
  headers_setter: {{headers: [{{key: x-user, from_attribute: username}}]}}
receivers:
  otlp:
    protocols:
      http: {{endpoint: '127.0.0.1:0', auth: {{authenticator: basicauth}}}}
      grpc: {{endpoint: '127.0.0.1:0', auth: {{authenticator: basicauth}}}}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{sink}', auth: {{authenticator: headers_setter}}}}
service:
  tier: pro
  extensions: [basicauth, headers_setter]
  journal: {{directory: '{journal}'}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}
"""


@pytest.mark.parametrize("send", [post, call])
def test_the_user_reaches_the_backend_through_the_journal_but_the_password_does_not(sink, tmp_path, send):
    seen = []
    handler = sink.RequestHandlerClass
    accept = handler.do_POST

    def record(self):
        seen.append(dict(self.headers))
        accept(self)

    handler.do_POST = record
    basic = "Basic " + base64.b64encode(b"shop:s3cret").decode()
    with Agent(BASIC.format(sink=sink.server_port, journal=tmp_path / "journal"), tmp_path) as agent:
        port = agent.port("http" if send is post else "grpc")
        assert send(port, "Basic " + base64.b64encode(b"shop:wrong").decode()) in {
            (401, 'Basic realm="otelwp-agent", charset="UTF-8"'),
            grpc.StatusCode.UNAUTHENTICATED,
        }
        assert send(port, basic) in {(200, None), grpc.StatusCode.OK}
        wait_for_spans(sink, SPANS)
        assert agent.stop() == 0
    assert [headers["x-user"] for headers in seen] == ["shop"]
    assert "authorization" not in {name.lower() for name in seen[0]}
    stored = b"".join(file.read_bytes() for file in (tmp_path / "journal").rglob("*") if file.is_file())
    assert basic.encode() not in stored
