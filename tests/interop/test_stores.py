"""PostgreSQL and Redis hang, stop and restart while several tenants send: no request notices it."""

import signal
import time
from collections import Counter
from statistics import quantiles

import pytest

from tests.e2e.conftest import backend
from tests.interop.postgresql import Postgresql
from tests.interop.process import eventually
from tests.interop.redis import Redis
from tests.kit.agent import PATIENCE, Agent
from tests.kit.load import HttpSender, Load, accepted
from tests.kit.tenants import Tenants

pytestmark = pytest.mark.interop

RATE, BURST = 25, 25
"""Requests a second that each tenant may send, and at once."""
SENT = {"loud1": 60, "loud2": 60, "loud3": 60, "quiet": 15}
"""Requests a second that a tenant sends."""
REDIS_TIMEOUT = 3.0
SLOWEST = 2.0
"""Seconds: a request that waits for a store that hangs takes `REDIS_TIMEOUT` at least, or 5 s for PostgreSQL.

What another agent, which uses no store, takes at the same time is added: on a busy machine, that is longer.
"""
STALE = 8.0
"""Seconds without an answer of the store: it is asked every 5 s while it notifies changes."""

CONFIG = """
extensions:
  control_store: {{url: '{tenants.url}', pepper_file: '{tenants.pepper_file}'}}
  api_key:
  rate_limiter: {{redis: {{url: '{redis.url}', replicas: 1, timeout: {timeout}s}}}}
  headers_setter: {{headers: [{{key: x-tenant, from_tenant: true}}]}}
receivers:
  otlp:
    protocols:
      http: {{endpoint: '127.0.0.1:0', auth: {{authenticator: api_key}}, middlewares: [{{id: rate_limiter}}]}}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{sink}', compression: none, auth: {{authenticator: headers_setter}}}}
service:
  extensions: [control_store, api_key, rate_limiter, headers_setter]
  journal: {{directory: '{folder}/journal'}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}
"""

CONTROL = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}}}
exporters: {{otlp_http: {{endpoint: 'http://127.0.0.1:{sink}', compression: none}}}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}}}
"""
"""An agent without stores, to measure the machine's own delays."""


@pytest.fixture
def postgresql():
    server = Postgresql()
    try:
        with server:
            yield server
    finally:
        server.remove()


def test_stores_hang_and_restart_under_load(postgresql, tmp_path):
    redis = Redis(tmp_path)
    with redis, Tenants(postgresql.database(), tmp_path / "pepper") as tenants, backend() as sink, backend() as other:
        tenants.plan("small", requests_per_second=RATE, request_burst=BURST)
        keys = {tenant: tenants.add(tenant, "small") for tenant in SENT}
        config = CONFIG.format(
            tenants=tenants, redis=redis, timeout=REDIS_TIMEOUT, sink=sink.server_port, folder=tmp_path
        )
        control = Agent(CONTROL.format(sink=other.server_port), tmp_path, name="control")
        with control, Agent(config, tmp_path, metrics=True) as agent:
            agent.wait_for_metric("otelwp_rate_limiter_redis_connected", 1)
            loads = {
                tenant: Load(HttpSender(agent.port()), rate, {"x-api-key": keys[tenant]})
                for tenant, rate in SENT.items()
            }
            plain = Load(HttpSender(control.port()), SENT["quiet"])
            began = time.monotonic()
            for load in (plain, *loads.values()):
                load.start()
            phases = interrupt(agent, postgresql, redis)
            # both are used again: a key that is created now is accepted, and Redis counts
            new = {"x-api-key": tenants.key("quiet")[1]}
            ask = HttpSender(agent.port(), fresh=True)
            assert eventually(lambda: ask(b"", new), lambda status: status == 200, patience=PATIENCE) == 200
            for load in (plain, *loads.values()):
                load.stop()
            seconds = time.monotonic() - began
            check_answers(loads, plain, phases, seconds)
            acknowledged = Counter({tenant: len(accepted(load.answers)) for tenant, load in loads.items()})
            assert (
                eventually(sink.tenants.copy, lambda arrived: arrived == acknowledged, patience=PATIENCE)
                == acknowledged
            )
            agent.wait_for_metric("otelwp_pipeline_in_flight_items", 0)
            for name in ("accepted", "settled"):
                assert agent.metric(f"otelwp_pipeline_{name}_items") == acknowledged.total()


def interrupt(agent, postgresql, redis):
    """Let both stores hang, then stop and restart them; return when each phase began, by name."""
    phases = {"normal": time.monotonic()}
    time.sleep(5)  # load for comparison
    phases["hung"] = time.monotonic()
    for server in (postgresql, redis):
        server.signal(signal.SIGSTOP)
    agent.wait_for_metric("otelwp_rate_limiter_redis_connected", 0)
    eventually(lambda: agent.metric("otelwp_control_store_age_seconds"), lambda age: age > STALE, patience=PATIENCE)
    assert agent.metric("otelwp_control_store_age_seconds") > STALE
    phases["continued"] = time.monotonic()
    for server in (postgresql, redis):
        server.signal(signal.SIGCONT)
    recovered(agent)
    phases["stopped"] = time.monotonic()
    for server in (postgresql, redis):
        server.stop()
    agent.wait_for_metric("otelwp_rate_limiter_redis_connected", 0)
    eventually(lambda: agent.metric("otelwp_control_store_age_seconds"), lambda age: age > STALE, patience=PATIENCE)
    assert agent.metric("otelwp_control_store_age_seconds") > STALE
    phases["restarted"] = time.monotonic()
    for server in (postgresql, redis):
        server.__enter__()
    recovered(agent)
    return phases


def recovered(agent):
    agent.wait_for_metric("otelwp_rate_limiter_redis_connected", 1)
    age = eventually(
        lambda: agent.metric("otelwp_control_store_age_seconds"), lambda age: age < STALE / 2, patience=PATIENCE
    )
    assert age < STALE / 2


def check_answers(loads, plain, phases, seconds):
    """Compare what tenants were answered with their limits, and how long it took in each phase."""
    for tenant, load in loads.items():
        assert {answer.status for answer in load.answers} <= {200, 429}, tenant
    quiet = loads["quiet"].answers
    assert {answer.status for answer in quiet} == {200}, Counter(answer.status for answer in quiet)
    for tenant in set(loads) - {"quiet"}:
        asked, taken = len(loads[tenant].answers), len(accepted(loads[tenant].answers))
        allowed = BURST + seconds * RATE
        assert min(asked, allowed) / 2 < taken < 1.2 * allowed, (tenant, asked, allowed)
    answers = [answer for load in loads.values() for answer in load.answers]
    begins = [*phases.values(), float("inf")]
    slow, machine = {}, {}
    for name, begin, end in zip(phases, begins, begins[1:], strict=False):
        times, others = (
            [answer.seconds for answer in found if begin <= answer.began < end] for found in (answers, plain.answers)
        )
        slow[name], machine[name] = (quantiles(each, n=20)[-1] for each in (times, others))
        assert max(times) < SLOWEST + 2 * max(others), name
    for name, time_ in slow.items():
        assert time_ < 3 * slow["normal"] + 2 * machine[name] + 0.1, (name, slow, machine)
