"""Rates shared through a real Redis, which is stopped and restarted under load."""

import asyncio
import http.client
import random
import threading
import time

import pytest
import structlog

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.limiting.gcra import Rate
from otelwp_agent.limiting.leases import SharedRates
from otelwp_agent.limiting.redis_store import SCRIPT, RedisStore
from otelwp_agent.model.signal import Signal
from tests.interop.redis import Redis
from tests.kit.agent import Agent
from tests.kit.redis_server import Store

pytestmark = pytest.mark.interop


async def test_the_script_does_what_the_model_does(tmp_path):
    with Redis(tmp_path) as server:
        from redis.asyncio import Redis as Client

        client, dice = Client.from_url(server.url), random.Random(5)
        script = client.register_script(SCRIPT)
        now = 0.0
        model = Store(lambda: now)
        for _ in range(300):
            keys = dice.sample(["a", "b", "c", "d"], dice.randint(1, 4))
            rows = [
                (
                    1 / dice.choice([1, 1000, 1e6]),
                    dice.choice([0.5, 10, 3600]),
                    dice.choice([0, 0, 3, -1, 5000]),
                    dice.choice([0, 2]),
                    dice.choice([0, 1, 500]),
                    dice.choice([0, 1, 1]),
                )
                for _ in keys
            ]
            arguments = [repr(float(value)) for row in rows for value in row]
            seconds, micros = await client.time()
            now = seconds + micros / 1e6
            late = not dice.randrange(10)
            arguments.insert(0, repr(now - 1 if late else now + 60))
            answers = [float(each) for each in await script(keys=keys, args=arguments)]
            expected = model.run(keys, arguments)
            assert answers[0] == pytest.approx(now, abs=0.3)
            assert len(answers) == 1 if late else len(answers) == 1 + 2 * len(keys)
            for (interval, *_), at in zip(rows, range(1, len(answers), 2), strict=not late):
                # the calls of both are some milliseconds apart
                assert answers[at] * interval == pytest.approx(expected[at] * interval, abs=0.3)
                assert answers[at + 1] == pytest.approx(expected[at + 1], abs=0.3)
            model.due = {key: float(await client.get(key)) for key in model.due}
        await client.aclose()


class Replica:
    """One replica: its background task runs on the loop of the test."""

    def __init__(self, url, replicas):
        self.slowest = 0.0
        self.store = RedisStore(url, "test", 0.25, clock=time.monotonic, log=structlog.get_logger())
        self.rates = SharedRates("requests", replicas, self.store.wake)
        self.store.rates = [self.rates]

    def take(self, rate, key):
        began = time.perf_counter()
        wait = self.rates.take(key, rate, time.monotonic())
        self.slowest = max(self.slowest, time.perf_counter() - began)
        return not wait


async def flood(replicas, rate, seconds, per_second):
    """Send requests to all replicas; return how many were accepted, and the seconds."""
    began, accepted, sent = time.monotonic(), 0, 0
    while (passed := time.monotonic() - began) < seconds:
        while sent < passed * per_second:
            accepted += replicas[sent % len(replicas)].take(rate, "tenant")
            sent += 1
        await asyncio.sleep(0.002)  # as a server that waits for requests
    return accepted, time.monotonic() - began


async def stop_and_start(server, replicas):
    """Stop Redis and start it again, twice, with pauses in which the replicas notice it."""
    for _ in range(2):
        await asyncio.sleep(3)  # Redis is there
        assert all(replica.store.connected for replica in replicas)
        await asyncio.to_thread(server.__exit__, None, None, None)
        await asyncio.sleep(3)  # Redis is unreachable
        assert not any(replica.store.connected for replica in replicas)
        await asyncio.to_thread(server.__enter__)


async def test_limits_hold_while_redis_is_stopped_and_restarted_under_load(tmp_path):
    rate, server = Rate(200, 100), Redis(tmp_path)
    replicas = [Replica(server.url, 3) for _ in range(3)]
    with server:
        for replica in replicas:
            replica.store.start()
        restarts = asyncio.create_task(stop_and_start(server, replicas))
        accepted, seconds = await flood(replicas, rate, 16, 3000)
        await restarts
        for replica in replicas:
            await replica.store.stop()
    assert accepted == pytest.approx(rate.burst + seconds * rate.per_second, rel=0.2)
    assert max(replica.slowest for replica in replicas) < 0.1  # a call of Redis takes up to 0.25 s, or for ever


AGENT = """
extensions:
  rate_limiter:
    limits: [{{key: route, requests_per_second: {rate}, burst: {burst}}}]
    redis: {{url: "{url}", replicas: 2}}
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:0", middlewares: [{{id: rate_limiter}}]}}}}}}
exporters: {{debug: }}
service:
  extensions: [rate_limiter]
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"""


class Load(threading.Thread):
    """Sends requests to one agent, 300 a second, until `end`; counts the accepted ones."""

    def __init__(self, port, end):
        super().__init__()
        self.accepted, self.other, self.slowest = 0, 0, 0.0
        self._port, self._end = port, end

    def run(self):
        body = Sample(spans_per_trace=1).make(Signal.TRACES, 1, time.time_ns())
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        due = time.monotonic()
        while due < self._end:
            due += 1 / 300
            time.sleep(max(0.0, due - time.monotonic()))  # keeps to the rate
            began = time.monotonic()
            connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
            answer = connection.getresponse()
            answer.read()
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.accepted += answer.status == 200
            self.other += answer.status not in (200, 429)
        connection.close()


def test_two_agents_keep_one_limit_while_redis_is_stopped_and_restarted(tmp_path):
    rate, burst, server = 50, 50, Redis(tmp_path)
    config = AGENT.format(rate=rate, burst=burst, url=server.url)
    with server, Agent(config, tmp_path, name="a", metrics=True) as a, Agent(config, tmp_path, name="b") as b:
        a.wait_for_metric("otelwp_rate_limiter_redis_connected", 1)
        began = time.monotonic()
        loads = [Load(agent.port(), began + 15) for agent in (a, b)]
        for load in loads:
            load.start()
        time.sleep(4)  # Redis is there
        server.stop()
        a.wait_for_metric("otelwp_rate_limiter_redis_connected", 0)
        time.sleep(4)  # Redis is unreachable
        server.__enter__()
        a.wait_for_metric("otelwp_rate_limiter_redis_connected", 1)
        for load in loads:
            load.join()
        seconds = time.monotonic() - began
    assert sum(load.accepted for load in loads) == pytest.approx(burst + seconds * rate, rel=0.2)
    assert sum(load.other for load in loads) == 0
    assert max(load.slowest for load in loads) < 5  # a machine that runs tests is busy; an answer of Redis never comes
