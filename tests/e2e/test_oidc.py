"""A real agent that authenticates by the tokens of an issuer, whose keys are replaced while requests arrive."""

import http.client
import itertools
import threading
import time
from collections import Counter
from contextlib import closing

import grpc
import pytest

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from tests.kit.agent import PATIENCE, Agent
from tests.kit.oidc import AUDIENCE, Issuer, SigningKey

SPANS = 2
BODY = Sample(spans_per_trace=SPANS, seed=1).make(Signal.TRACES, 1, 1_760_000_000_000_000_000)
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SENDERS = 3
ROTATIONS = 3

CONFIG = """
extensions:
  oidc:
    providers: [{{issuer_url: '{issuer}', audience: '{audience}', tenant_claim: org}}]
    refresh_interval: {interval}
receivers:
  otlp:
    protocols:
      http: {{endpoint: '127.0.0.1:0', auth: {{authenticator: oidc}}}}
      grpc: {{endpoint: '127.0.0.1:0', auth: {{authenticator: oidc}}}}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{sink}'}}
service:
  tier: enterprise
  extensions: [oidc]
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}
"""


@pytest.fixture
def issuer():
    with Issuer(SigningKey("k0")) as issuer:
        yield issuer


def make_agent(issuer, sink, folder, interval="250ms"):
    config = CONFIG.format(issuer=issuer.url, audience=AUDIENCE, sink=sink.server_port, interval=interval)
    return Agent(config, folder, metrics=True)


def post(port, token):
    headers = {"content-type": "application/x-protobuf", "authorization": f"Bearer {token}"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("POST", "/v1/traces", BODY, headers)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("retry-after"), response.getheader("www-authenticate")


def call(port, token):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(EXPORT)(BODY, timeout=PATIENCE, metadata=(("authorization", f"Bearer {token}"),))
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)  # the agent is another process


class Senders:
    """Threads that send one request after another, each with a new token of the key that is current."""

    def __init__(self, issuer, port):
        self.issuer, self.port = issuer, port
        self.key = issuer.keys[0]
        self.statuses = Counter()
        self.by_key = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(SENDERS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, sender):
        for number in itertools.count():
            if self._stop.is_set():
                return
            key = self.key
            status, retry_after, _ = post(self.port, self.issuer.token(key, org="shop", jti=f"{sender}-{number}"))
            with self._lock:
                self.statuses[status] += 1
                self.by_key[key.kid] += status == 200
            if status == 503:
                assert retry_after == "1"
                self._stop.wait(0.1)


def test_keys_are_replaced_under_load_and_nothing_valid_is_refused(issuer, sink, tmp_path):
    with make_agent(issuer, sink, tmp_path) as agent:
        agent.wait_for("keys fetched")
        port = agent.port("http")
        with Senders(issuer, port) as senders:
            wait_until(lambda: senders.by_key["k0"] >= 5)
            for number in range(1, ROTATIONS + 1):
                old, new = issuer.keys[0], SigningKey(f"k{number}", number=number)
                issuer.keys.append(new)
                if number > 1:  # the first new key is used at once; an unknown one is fetched once in ten seconds
                    agent.wait_for("keys changed", added=1, count=number)
                senders.key = new
                wait_until(lambda kid=new.kid: senders.by_key[kid] >= 5)
                assert post(port, issuer.token(old, org="shop"))[0] == 200, "both keys are valid"
                issuer.keys.remove(old)
                agent.wait_for("keys changed", removed=1, count=number)
                assert post(port, issuer.token(old, org="shop"))[0] in {401, 503}, "a removed key is refused"
                wait_until(lambda old=old: post(port, issuer.token(old, org="shop"))[0] == 401)
        assert {*senders.statuses} <= {200, 503}, senders.statuses
        assert all(senders.by_key[f"k{number}"] >= 5 for number in range(ROTATIONS + 1))
        wait_until(lambda: sink.spans == SPANS * (senders.statuses[200] + ROTATIONS))
        assert agent.stop() == 0


def test_http_and_grpc_get_the_same_answers_and_no_token_is_logged(issuer, sink, tmp_path):
    issuer.open.clear()
    with make_agent(issuer, sink, tmp_path, interval="1h") as agent:
        http_port, grpc_port = agent.port("http"), agent.port("grpc")
        right, wrong = issuer.token(org="shop"), issuer.token(org="shop", aud="other")
        assert post(http_port, right) == (503, "1", None)
        assert call(grpc_port, right) is grpc.StatusCode.UNAVAILABLE
        issuer.open.set()
        agent.wait_for("keys fetched")
        assert post(http_port, right) == (200, None, None)
        assert call(grpc_port, right) is grpc.StatusCode.OK
        unknown = issuer.token(SigningKey("other", number=9), org="shop")
        wait_until(lambda: post(http_port, unknown)[0] == 401)
        for token in (wrong, unknown, right[:-8], "x", issuer.token(org="shop", exp=1)):
            assert post(http_port, token) == (401, None, "Bearer")
            assert call(grpc_port, token) is grpc.StatusCode.UNAUTHENTICATED
        nobody = issuer.token()
        assert post(http_port, nobody)[0] == 403
        assert call(grpc_port, nobody) is grpc.StatusCode.PERMISSION_DENIED
        wait_until(lambda: sink.spans == 2 * SPANS)
        assert agent.metric("otelwp_oidc_refusals", reason="audience") == 2
        assert agent.metric("otelwp_oidc_keys") == 1
        assert not any(token.split(".")[-1] in agent.output for token in (right, wrong, unknown, nobody))
        assert agent.stop() == 0
