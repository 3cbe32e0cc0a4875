import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import structlog
from pydantic import ValidationError

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.errors import StartError
from otelwp_agent.extensions.remote_sampling import FACTORY, Config
from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.policy import Always, Budget, Policy
from otelwp_agent.sampling.adaptive.trace import Trace
from otelwp_agent.telemetry.metrics import Registry

SERVICE_AND_NAME = ["service.name", "span.name"]


def sampler(per, keys):
    """Return a sampler that has seen 30 seconds of so many traces a second of each key, and keeps 10 a second."""
    policy = Policy(Budget.traces_per_second(10), always=Always(None, None, None, None))
    controller = Controller(policy, 0.0)
    number = 0
    for second in range(30):
        for key, rate in keys.items():
            for _ in range(rate):
                number += 0x9E3779B97F4A7C15
                controller.decide(Trace(number & 0xFFFFFFFFFFFFFF, key=key), float(second))
        controller.tick(second + 1.0)
    return SimpleNamespace(controller=controller, per=per)


class Host:
    ready = True

    def __init__(self):
        self.found = []

    def providers(self, capability):
        return self.found


@pytest.fixture
def host():
    return Host()


@pytest.fixture
async def ask(host):
    context = Context(
        id=ComponentId("remote_sampling"),
        kind=Kind.EXTENSION,
        registry=Registry(),
        log=structlog.get_logger(),
        clock=lambda: 30.0,
        host=host,
    )
    extension = FACTORY.build(Config(endpoint="127.0.0.1:0"), context)
    await extension.start()

    async def ask(target, method="GET", host="localhost"):
        reader, writer = await asyncio.open_connection("127.0.0.1", extension.port)
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body) if b"application/json" in head else body.decode()

    ask.extension = extension
    yield ask
    await extension.shutdown()
    await extension.shutdown()


async def test_a_service_is_told_its_rate(ask, host):
    host.found = [sampler(["service.name"], {("shop",): 100, ("blog",): 1})]
    status, told = await ask("/sampling?service=shop")
    assert status == 200
    assert told.keys() == {"strategyType", "probabilisticSampling"}
    assert told["strategyType"] == "PROBABILISTIC"
    assert told["probabilisticSampling"]["samplingRate"] == pytest.approx(2 * 9 / 100, rel=0.2)
    assert (await ask("/sampling?service=blog"))[1]["probabilisticSampling"]["samplingRate"] == 1
    assert ask.extension.endpoints() == {"sampling": f"http://127.0.0.1:{ask.extension.port}/sampling"}


async def test_jaegers_first_clients_get_a_number(ask, host):
    host.found = [sampler(["service.name"], {("shop",): 100})]
    _, told = await ask("/sampling?service=shop")
    assert await ask("/?service=shop") == (200, {**told, "strategyType": 0})


async def test_operations_are_told_theirs(ask, host):
    host.found = [sampler(SERVICE_AND_NAME, {("shop", "GET /"): 100, ("shop", "GET /rare"): 1})]
    _, told = await ask("/sampling?service=shop")
    of = told["operationSampling"]
    rates = {each["operation"]: each["probabilisticSampling"]["samplingRate"] for each in of["perOperationStrategies"]}
    assert rates == {"GET /": pytest.approx(2 * 9 / 100, rel=0.2), "GET /rare": 1}
    assert of["defaultSamplingProbability"] == told["probabilisticSampling"]["samplingRate"]
    assert of["defaultLowerBoundTracesPerSecond"] == 0


async def test_names_that_have_to_be_escaped(ask, host):
    host.found = [sampler(["service.name"], {("a b&c/ü",): 100})]
    _, told = await ask("/sampling?service=a%20b%26c%2F%C3%BC")
    assert told["probabilisticSampling"]["samplingRate"] < 0.5


@pytest.mark.parametrize(
    "target", ["/sampling", "/sampling?service=", "/sampling?service=a&service=a", "/sampling?Service=a", "/"]
)
async def test_the_service_is_named_exactly_once(ask, host, target):
    host.found = [sampler(["service.name"], {("a",): 1})]
    assert await ask(target) == (400, "give `service` once: /sampling?service=NAME\n")


async def test_without_a_sampler_there_is_no_rate(ask):
    status, text = await ask("/sampling?service=a")
    assert status == 503
    assert "no pipeline has an adaptive_sampling" in text


async def test_other_methods_and_paths(ask):
    assert (await ask("/sampling?service=a", "POST"))[0] == 405
    assert (await ask("/other"))[0] == 404


async def test_a_port_in_use_is_told(ask, host):
    # With the same name it would be the successor of the first, as at a reload.
    context = replace(ask.extension.context, id=ComponentId("remote_sampling", "other"))
    other = FACTORY.build(Config(endpoint=f"127.0.0.1:{ask.extension.port}"), context)
    with pytest.raises(StartError, match="remote_sampling"):
        await other.start()
    await other.shutdown()


@pytest.mark.parametrize("settings", [{"min_rate": 0}, {"min_rate": 1.1}, {"headroom": 0.5}, {"settle": 0}, {"x": 1}])
def test_settings_that_cannot_be_meant(settings):
    with pytest.raises(ValidationError):
        Config.model_validate(settings)


async def test_another_host_is_refused_and_the_answer_says_what_to_add(ask, host):
    status, message = await ask("/sampling?service=shop", host="evil.example")
    assert status == 403
    assert "`allowed_hosts` of extension remote_sampling" in message
    assert (await ask("/?service=shop", host="evil.example"))[0] == 403


def test_allowed_hosts_are_names():
    assert Config(allowed_hosts=["Agent.Example.", "[::1]", "*"]).allowed_hosts == ["agent.example", "::1", "*"]
    with pytest.raises(ValidationError, match="write only a name"):
        Config(allowed_hosts=["http://agent.example:5778"])
