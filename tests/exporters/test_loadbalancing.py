"""The exporter finds its backends, follows their changes, and refuses what it cannot do."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from otelwp_agent.component import Kind
from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.config.types import Endpoint
from otelwp_agent.errors import ConfigError
from otelwp_agent.exporters.loadbalancing import Config, LoadBalancing
from otelwp_agent.exporters.loadbalancing.resolvers import with_port
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.plan import make_plan
from otelwp_agent.testing import FakeTimeLoop, make_context


class Names:
    """A name service whose answer tests change."""

    def __init__(self, *addresses):
        self.addresses = addresses
        self.asked = []

    async def lookup(self, hostname, port):
        self.asked.append((hostname, port))
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return [f"{address}:{port}" for address in self.addresses]


@contextlib.asynccontextmanager
async def balancing(names=None, **settings):
    settings.setdefault("resolver", {"dns": {"hostname": "samplers.example", "port": 9}})
    config = Config.model_validate({"protocol": {"otlp": {"tls": {"insecure": True}}}, **settings})
    clock = asyncio.get_running_loop().time
    context = make_context(Kind.EXPORTER, "loadbalancing", "x", clock=clock)
    exporter = LoadBalancing(config, context, names.lookup) if names else LoadBalancing(config, context)
    await exporter.start()
    try:
        yield exporter
    finally:
        await exporter.shutdown()


@pytest.fixture
def virtual():
    loop = FakeTimeLoop()
    yield loop.run_until_complete
    loop.close()


def test_names_are_found_and_lost_at_run_time(virtual):
    names = Names("10.0.0.2", "10.0.0.1")

    async def scenario():
        with capture_logs() as logs:
            async with balancing(names) as exporter:
                changes = []
                exporter.listeners.append(lambda: changes.append(sorted(exporter.backends)))
                assert [*exporter.backends] == ["10.0.0.1:9", "10.0.0.2:9"]
                first = exporter.backends["10.0.0.1:9"]
                names.addresses = ("10.0.0.1", "10.0.0.3")
                await asyncio.sleep(5.5)
                assert changes == [["10.0.0.1:9", "10.0.0.3:9"]]
                assert exporter.backends["10.0.0.1:9"] is first, "it keeps its connection"
                await asyncio.sleep(5)
                assert len(changes) == 1
                names.addresses = OSError("no name server")
                await asyncio.sleep(10)
                assert len(exporter.backends) == 2, "a failure is no change"
                value = exporter.context.registry.value
                assert value("otelcol_loadbalancer_num_backends") == 2
                assert value("otelcol_loadbalancer_num_backend_updates", resolver="dns") == 2
                assert value("otelcol_loadbalancer_num_resolutions", success="false") == 2
                assert value("otelcol_loadbalancer_num_resolutions", success="true") == 3
        found = [entry for entry in logs if entry["event"] == "backends not found"]
        assert [entry["error"] for entry in found] == ["the name `samplers.example` has no address"]
        assert {*names.asked} == {("samplers.example", 9)}

    virtual(scenario())


def test_a_lost_backend_that_is_in_use_stays_open_and_may_return(virtual):
    names = Names("10.0.0.1", "10.0.0.2")

    async def scenario():
        async with balancing(names) as exporter:
            lost = exporter.backends["10.0.0.2:9"]
            lost.users = 1
            names.addresses = ("10.0.0.1",)
            await asyncio.sleep(6)
            names.addresses = ("10.0.0.1", "10.0.0.2")
            await asyncio.sleep(5)
            assert exporter.backends["10.0.0.2:9"] is lost
            names.addresses = ("10.0.0.1",)
            await asyncio.sleep(5)
            lost.users = 0
            await exporter.released(lost)
            names.addresses = ("10.0.0.1", "10.0.0.2")
            await asyncio.sleep(5)
            assert exporter.backends["10.0.0.2:9"] is not lost

    virtual(scenario())


async def test_static_backends():
    async with balancing(resolver={"static": {"hostnames": ["b:1", "a", "[::1]:2"]}}) as exporter:
        assert [*exporter.backends] == ["b:1", "a:4317", "[::1]:2"]
        assert str(exporter.backends["a:4317"].exporter.context.id) == "loadbalancing/x/a:4317"
        exporter.refresh()
        assert exporter.context.registry.value("otelcol_loadbalancer_num_backends") == 3
    assert "num_backends{" not in exporter.context.registry.expose()
    assert with_port(Endpoint("[fe80::1]")) == "[fe80::1]:4317"


async def test_the_same_trace_goes_to_the_same_backend_of_every_agent():
    span = b"\x0a\x10" + bytes(range(16))
    body = b"\x0a\x16\x12\x14\x12\x12" + span
    chosen = set()
    for hostnames in (["a", "b", "c"], ["c", "b", "a"]):
        async with balancing(resolver={"static": {"hostnames": hostnames}}) as exporter:
            batch = Batch(Signal.TRACES, body, 1, Origin(), [(Receipt(1), 1)])
            chosen |= {name for name, _ in exporter.divide(batch, [*exporter.backends])}
            assert exporter.divide(batch, ["b:4317"]) == [("b:4317", batch)]
    assert len(chosen) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "resolver"),
        ({"resolver": {}}, "none is given"),
        ({"resolver": {"static": {"hostnames": ["a"]}, "dns": {"hostname": "b"}}}, "both are given"),
        ({"resolver": {"k8s": {"service": "lb"}}}, "headless service"),
        ({"resolver": {"aws_cloud_map": {"service_name": "lb"}}}, "Cloud Map service"),
        ({"resolver": {"static": {"hostnames": []}}}, "at least 1 item"),
        ({"resolver": {"static": {"hostnames": ["a:4317", "a"]}}}, "'a:4317' is in the list twice"),
        ({"resolver": {"static": {"hostnames": ["https://a:1"]}}}, "write `host:port`"),
        ({"resolver": {"dns": {"hostname": "a:4317"}}}, "the port as `port`"),
        ({"resolver": {"dns": {"hostname": "a", "port": 0}}}, "greater than or equal to 1"),
        ({"resolver": {"dns": {"hostname": "a", "interval": "0s"}}}, "greater than 0"),
        ({"routing_key": "streamID"}, "use `metric`"),
        ({"routing_key": "random"}, "traceID"),
        ({"routing_key": "attributes"}, "need each other"),
        ({"routing_attributes": ["a"]}, "need each other"),
        ({"routing_key": "attributes", "routing_attributes": ["a", "a"]}, "'a' is in the list twice"),
        ({"protocol": {"http": {}}}, "http"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(settings if settings == {} or "resolver" in settings else settings | GOOD)
    assert message in str(caught.value)


GOOD = {"resolver": {"static": {"hostnames": ["a:4317", "b:4317"]}}}
COLLECTOR = """
receivers: {otlp: {protocols: {grpc: }}}
exporters:
  loadbalancing:
    routing_key: %s
    timeout: 10s
    sending_queue: {enabled: true}
    protocol:
      otlp: {timeout: 1s, endpoint: "ignored:1", tls: {insecure: true}}
    resolver:
      dns: {hostname: samplers.example, port: "4317", interval: 5s, timeout: 1s}
service:
  pipelines:
    %s: {receivers: [otlp], exporters: [loadbalancing]}
"""


def plan_of(text, tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    return make_plan(load([str(file)], (), {}), Catalog())


@pytest.mark.parametrize(
    ("key", "signal", "message"),
    [
        ("traceID", "metrics", "metrics have no key `traceID`: use another exporter for them, with one of `service`"),
        ("metric", "traces", "traces have no key `metric`"),
    ],
)
def test_a_key_that_a_signal_does_not_have(tmp_path, key, signal, message):
    with pytest.raises(ConfigError) as caught:
        plan_of(COLLECTOR % (key, signal), tmp_path)
    assert [problem.line for problem in caught.value.problems] == [14]
    assert message in str(caught.value)


def test_a_configuration_of_the_collector(tmp_path):
    warnings = [str(problem) for problem in plan_of(COLLECTOR % ("service", "metrics"), tmp_path).warnings]
    assert len([text for text in warnings if "give it under `protocol.otlp`" in text]) == 2
    assert len([text for text in warnings if "the endpoints are those of the resolver" in text]) == 1


def test_the_default_key():
    config = Config.model_validate(GOOD)
    assert [config.key(signal) for signal in Signal] == [
        {"traces": "traceID", "logs": "traceID", "metrics": "service"}[signal.value] for signal in Signal
    ]
