from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
from pydantic import ValidationError

import otelwp_agent
from otelwp_agent.component import ComponentHealth, ComponentId, Context, Kind, Stall
from otelwp_agent.errors import StartError
from otelwp_agent.extensions import health_check
from otelwp_agent.extensions.health_check import FACTORY, LOOK_EVERY, Config, HealthCheck
from otelwp_agent.extensions.health_check.watch import Watch
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import FakeClock
from otelwp_agent.transport.side_loop import SIDE_LOOP
from tests.kit.agent import free_port
from tests.kit.certificates import Authority

EXPORTER = ComponentHealth(Kind.EXPORTER, "otlp_http", healthy=True, details={"queue_size": 3, "data_type": "traces"})
RECEIVER = ComponentHealth(Kind.RECEIVER, "otlp", healthy=True)
BORN = 1_795_184_645.0  # 2026-11-20T14:24:05Z


def failing(times=1, message="connection refused"):
    details = {"queue_size": 900, "data_type": "traces", "consecutive_failures": times}
    return ComponentHealth(Kind.EXPORTER, "otlp_http", healthy=False, message=message, details=details)


@dataclass
class Host:
    """A service as an extension sees it."""

    status: str = "ready"
    started_at: float = BORN
    found: list[ComponentHealth] = field(default_factory=lambda: [RECEIVER, EXPORTER])
    stalled: Stall | None = None

    @property
    def ready(self):
        return self.status == "ready"

    def components(self):
        return self.found

    def stall(self):
        return self.stalled


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def clock():
    return FakeClock(1000.0)


def build(host, clock, **settings):
    config = Config.model_validate({"endpoint": "127.0.0.1:0", **settings})
    context = Context(
        id=ComponentId("health_check"),
        kind=Kind.EXTENSION,
        registry=Registry(),
        log=structlog.get_logger(),
        clock=clock,
        host=host,
    )
    return HealthCheck(config, context, wall=lambda: BORN + clock.now - 1000 + 3725)


@pytest.fixture
async def started(host, clock, monkeypatch):
    """Start an extension that asks for a new snapshot at each request, unless `fresh` seconds are given."""
    monkeypatch.setattr(health_check, "FRESH", 0.0)
    running = []

    async def start(**settings):
        extension = build(host, clock, **settings)
        await extension.start()
        running.append(extension)
        return extension

    yield start
    for extension in running:
        await extension.shutdown()


async def ask(extension, path, method="GET", host="localhost"):
    reader, writer = await asyncio.open_connection("127.0.0.1", extension.port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


async def ask_json(extension, path):
    status, body = await ask(extension, path)
    return status, json.loads(body)


async def test_healthy(started):
    extension = await started()
    assert await ask_json(extension, "/health") == (
        200,
        {
            "status": "healthy",
            "agent": "ready",
            "version": otelwp_agent.__version__,
            "uptime": "1h2m5s",
            "up_since": "2026-11-20T14:24:05Z",
        },
    )


async def test_a_person_reads_it(started):
    _, body = await ask(await started(), "/health")
    assert body.startswith('{\n  "status": "healthy",\n  "agent": "ready",\n')
    assert body.endswith("}\n")


async def test_a_failing_exporter_degrades_and_shows(started, host):
    host.found = [failing(), RECEIVER]
    extension = await started()
    status, body = await ask_json(extension, "/health")
    assert (status, body["status"]) == (200, "degraded")
    assert body["reasons"] == ["exporter otlp_http (traces): connection refused"]
    status, body = await ask_json(extension, "/health/detailed")
    assert (status, body["status"]) == (200, "degraded")
    assert body["components"] == [
        {
            "kind": "exporter",
            "id": "otlp_http",
            "status": "degraded",
            "since": "2026-11-20T15:26:10Z",
            "message": "connection refused",
            "details": {"queue_size": 900, "data_type": "traces", "consecutive_failures": 1},
        },
        {"kind": "receiver", "id": "otlp", "status": "healthy", "since": "2026-11-20T15:26:10Z"},
    ]
    assert (await ask_json(extension, "/ready"))[0] == 200


async def test_since_is_when_the_state_changed(started, host, clock):
    extension = await started()
    clock.now += 60
    host.found = [failing(), RECEIVER]
    _, first = await ask_json(extension, "/health/detailed")
    clock.now += 60
    host.found = [failing(5), RECEIVER]
    _, second = await ask_json(extension, "/health/detailed")
    assert [each["since"] for each in first["components"]] == ["2026-11-20T15:27:10Z", "2026-11-20T15:26:10Z"]
    assert [each["since"] for each in second["components"]] == ["2026-11-20T15:27:10Z", "2026-11-20T15:26:10Z"]


async def test_it_looks_by_itself(started, host, clock, monkeypatch):
    monkeypatch.setattr("otelwp_agent.extensions.health_check.LOOK_EVERY", 0.001)
    looked = asyncio.Event()

    def components():
        looked.set()
        return [failing()]

    extension = await started()
    clock.now += 60
    host.components = components
    await asyncio.wait_for(looked.wait(), 5)
    clock.now += 60
    _, body = await ask_json(extension, "/health/detailed")
    assert body["components"][0]["since"] <= "2026-11-20T15:27:10Z"
    assert LOOK_EVERY <= 1


@pytest.mark.parametrize("status", ["starting", "draining", "stopped"])
async def test_not_ready_is_unhealthy_and_still_alive(started, host, status):
    host.status = status
    extension = await started()
    assert await ask_json(extension, "/ready") == (503, {"status": status})
    code, body = await ask_json(extension, "/health")
    assert (code, body["status"], body["agent"]) == (503, "unhealthy", status)
    assert body["reasons"] == [f"the agent is not ready: {status}"]
    assert (await ask_json(extension, "/health/detailed"))[0] == 503
    assert await ask_json(extension, "/live") == (200, {"status": "alive"})
    assert await ask_json(extension, "/") == (503, {"status": "Server not available"})


async def test_readiness_follows_the_service(started, host):
    host.status = "starting"
    extension = await started()
    assert (await ask(extension, "/ready"))[0] == 503
    host.status = "ready"
    assert await ask_json(extension, "/ready") == (200, {"status": "ready"})
    host.status = "draining"
    assert (await ask(extension, "/ready"))[0] == 503


async def test_the_collectors_path_and_form(started):
    extension = await started(path="/custom/status")
    expected = {"status": "Server available", "upSince": "2026-11-20T14:24:05Z", "uptime": "1h2m5s"}
    assert await ask_json(extension, "/custom/status") == (200, expected)
    assert (await ask(extension, "/"))[0] == 404
    assert await ask_json(await started(), "/") == (200, expected)


async def test_fixed_bodies(started, host):
    extension = await started(path="/health", response_body={"healthy": "I am good", "unhealthy": "I am bad!"})
    assert await ask(extension, "/health") == (200, "I am good")
    host.status = "draining"
    assert await ask(extension, "/health") == (503, "I am bad!")
    half = await started(response_body={"healthy": "yes"})
    assert await ask_json(half, "/") == (503, {"status": "Server not available"})


async def test_too_many_failures_make_it_unhealthy_if_asked(started, host, clock):
    check = {"enabled": True, "interval": "1m", "exporter_failure_threshold": 3}
    extension = await started(check_collector_pipeline=check)
    host.found = [failing(3)]
    assert (await ask_json(extension, "/health"))[1]["status"] == "degraded"
    clock.now += 30
    host.found = [failing(4)]
    code, body = await ask_json(extension, "/health")
    assert (code, body["status"]) == (503, "unhealthy")
    assert body["reasons"][-1] == "exporter otlp_http (traces) failed 4 times, but 3 are allowed"
    host.found = [EXPORTER]
    assert (await ask_json(extension, "/health"))[0] == 503
    clock.now += 31
    assert (await ask_json(extension, "/health"))[1]["status"] == "healthy"


async def test_failures_do_not_make_it_unhealthy_unasked(started, host):
    host.found = [failing(1000)]
    assert (await ask_json(await started(), "/health"))[0] == 200


def test_watch_counts_again_after_a_success(clock):
    watch = Watch(clock, clock, 300)
    for row in (2, 2, 0, 1, 3, 1):  # 3, then a success that nobody saw, then 1
        watch.see([failing(row) if row else EXPORTER])
    assert watch.failing_often(5) == [("exporter otlp_http (traces)", 6)]
    assert watch.failing_often(6) == []
    watch.see([])
    assert watch.failing_often(0) == []


async def test_only_allowed_networks_may_ask(started):
    closed = await started(allow_cidrs=["10.0.0.0/8", "::1/128"])
    for path in ("/", "/health", "/health/detailed", "/ready", "/live"):
        status, body = await ask(closed, path)
        assert status == 403
        assert "127.0.0.1 is not in allow_cidrs of health_check" in body
    assert (await ask(await started(allow_cidrs=["10.0.0.0/8", "127.0.0.0/8"]), "/health"))[0] == 200


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [("10.1.2.3", True), ("11.1.2.3", False), ("::ffff:10.1.2.3", True), ("fe80::1%eth0", True), ("::1", False)],
)
def test_addresses_of_either_family(host, clock, peer, allowed):
    extension = build(host, clock, allow_cidrs=["10.0.0.0/8", "fe80::/10"])
    assert extension._is_allowed(peer) is allowed


async def test_unix_socket_needs_no_network(started, tmp_path):
    path = tmp_path / "health.sock"
    extension = await started(endpoint=f"unix://{path}", allow_cidrs=["10.0.0.0/8"])
    assert extension.endpoints() == {"health": f"unix://{path}"}
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


async def test_other_paths_and_methods(started):
    extension = await started()
    status, body = await ask(extension, "/healthz")
    assert status == 404
    assert "/health/detailed" in body
    assert (await ask(extension, "/health", "POST"))[0] == 405
    assert await ask(extension, "/health", "HEAD") == (200, "")


async def test_the_journal_is_shown_as_a_part_of_the_service(started, host):
    host.found = [ComponentHealth(None, "journal", healthy=False, message="full")]
    extension = await started()
    assert (await ask_json(extension, "/health"))[1]["reasons"] == ["service journal: full"]
    (shown,) = (await ask_json(extension, "/health/detailed"))[1]["components"]
    assert (shown["kind"], shown["id"], shown["message"]) == ("service", "journal", "full")


async def test_details_of_any_kind_are_written(started, host):
    odd = {"at": time.gmtime, "n": 1}
    host.found = [ComponentHealth(Kind.PROCESSOR, "batch", healthy=True, details=odd)]
    status, body = await ask_json(await started(), "/health/detailed")
    assert status == 200
    assert body["components"][0]["details"]["n"] == 1


async def test_a_port_in_use_names_the_component(host, clock):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        extension = build(host, clock, endpoint=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(StartError, match="extension health_check"):
            await extension.start()
        await extension.shutdown()


async def test_shutdown_without_start_and_twice(host, clock):
    extension = build(host, clock)
    await extension.shutdown()
    await extension.start()
    await extension.shutdown()
    await extension.shutdown()


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"allow_cidrs": ["10.0.0.1/8"]}, "write `10.0.0.0/8`"),
        ({"allow_cidrs": ["localhost"]}, "is not a network"),
        ({"path": "health"}, "begins with `/`"),
        ({"check_collector_pipeline": {"interval": "5"}}, "is not a duration"),
        ({"check_collector_pipeline": {"exporter_failure_threshold": 0}}, "greater than or equal to 1"),
        ({"response_body": {"fine": "x"}}, "Extra inputs"),
        ({"endpont": "127.0.0.1:1"}, "Extra inputs"),
    ],
)
def test_wrong_settings_say_what_would_be_right(settings, what):
    with pytest.raises(ValidationError, match=what):
        Config.model_validate(settings)


def test_defaults_are_the_collectors():
    config = FACTORY.config.model_validate({})
    assert config.endpoint == "127.0.0.1:13133"
    assert config.path == "/"
    assert config.check_collector_pipeline.enabled is False
    assert config.check_collector_pipeline.interval == 300
    assert config.check_collector_pipeline.exporter_failure_threshold == 5


async def test_it_is_served_by_a_thread_of_its_own(started, host):
    threads = []
    host.stall = lambda: threads.append(threading.current_thread().name)
    extension = await started()
    for path in ("/live", "/health", "/health/detailed", "/"):
        assert (await ask(extension, path))[0] == 200
    assert set(threads) == {"otelwp-side"}
    assert len(threads) >= 4


async def test_components_are_asked_on_the_main_thread_alone(started, host):
    threads = set()

    def components():
        threads.add(threading.current_thread())
        return [EXPORTER]

    host.components = components
    extension = await started()
    for path in ("/health", "/health/detailed", "/"):
        assert (await ask(extension, path))[0] == 200
    assert threads == {threading.main_thread()}


async def test_a_blocked_loop_is_degraded_and_alive(started, host):
    extension = await started()
    host.stalled = Stall(3.21, "receiver otlp: otelwp_agent.receivers.otlp.f (line 3)")
    code, body = await ask_json(extension, "/health")
    assert (code, body["status"]) == (200, "degraded")
    assert body["reasons"] == [
        "the event loop has been blocked for 3.2 s, in receiver otlp: otelwp_agent.receivers.otlp.f (line 3)"
    ]
    assert (await ask_json(extension, "/health/detailed"))[1]["reasons"] == body["reasons"]
    assert await ask_json(extension, "/live") == (200, {"status": "alive"})
    assert (await ask(extension, "/ready"))[0] == 200
    assert (await ask(extension, "/"))[0] == 200
    host.stalled = None
    assert (await ask_json(extension, "/health"))[1]["status"] == "healthy"


@pytest.mark.parametrize(("settings", "status"), [({}, 503), ({"dead_after": "2m"}, 200), ({"dead_after": 0}, 200)])
async def test_a_loop_that_is_blocked_for_good_is_not_alive(started, host, settings, status):
    extension = await started(**settings)
    host.stalled = Stall(61.0)
    code, body = await ask_json(extension, "/live")
    assert code == status
    if code == 503:
        assert body == {"status": "blocked", "reason": "the event loop has been blocked for 61.0 s"}


async def test_answers_are_made_once_in_a_moment_however_many_ask(started, host, clock, monkeypatch):
    monkeypatch.setattr(health_check, "FRESH", 0.25)
    asked = []
    found = host.found
    host.components = lambda: asked.append(clock.now) or found
    extension = await started()
    first = await ask(extension, "/health/detailed")
    found = [failing()]
    for _ in range(20):
        assert await ask(extension, "/health/detailed") == first
    assert len(asked) == 1
    clock.now += 0.3
    assert (await ask_json(extension, "/health/detailed"))[1]["status"] == "degraded"
    assert len(asked) == 2
    found = [RECEIVER]
    host.status = "draining"  # another status is shown at once, with the components that run now
    assert (await ask_json(extension, "/health"))[1]["status"] == "unhealthy"
    code, body = await ask_json(extension, "/health/detailed")
    assert (code, [each["id"] for each in body["components"]]) == (503, ["otlp"])


async def test_a_main_loop_that_is_late_is_answered_for_with_the_last_snapshot(started, host, monkeypatch):
    monkeypatch.setattr(health_check, "PATIENCE", 0.01)
    extension = await started()
    side = SIDE_LOOP.call(asyncio.get_running_loop)
    released = threading.Event()
    answers = []

    async def answer():
        handler = extension._from_snapshot(extension._health)()
        answers.append(await handler)
        released.set()

    host.found = [failing()]
    asyncio.run_coroutine_threadsafe(answer(), side)
    assert released.wait(5)  # blocks the main loop until the side loop has answered
    assert json.loads(answers[0].body)["status"] == "healthy"
    assert (await ask_json(extension, "/health"))[1]["status"] == "degraded"


@pytest.mark.parametrize("path", ["/", "/health", "/health/detailed", "/ready", "/live"])
async def test_other_hosts_are_refused(started, path):
    extension = await started()
    status, body = await ask(extension, path, host="evil.example:13133")
    assert status == 403
    assert "`allowed_hosts` of extension health_check" in body
    assert (await ask(extension, path, host="10.244.0.7:13133"))[0] == 403
    assert (await ask(await started(allowed_hosts=["agent"]), path, host="agent:13133"))[0] == 200


async def test_a_reload_hands_its_socket_and_connections_over(started):
    before = await started(endpoint=f"127.0.0.1:{free_port()}")
    reader, writer = await asyncio.open_connection("127.0.0.1", before.port)

    async def alive():
        writer.write(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"}\n")
        return head.startswith(b"HTTP/1.1 200")

    assert await alive()
    after = await started(endpoint=f"127.0.0.1:{before.port}", dead_after="1s")
    await before.shutdown()
    assert await alive()  # on the same connection
    assert (await ask(after, "/live"))[0] == 200
    writer.close()
    await writer.wait_closed()
    await after.shutdown()
    assert SIDE_LOOP._thread is None


async def test_tls_and_its_refresh(started, tmp_path):
    authority = Authority(tmp_path)
    pair = authority.sign()
    extension = await started(tls={"cert_file": pair.cert_file, "key_file": pair.key_file})
    context = ssl.create_default_context(cafile=authority.ca_file)
    reader, writer = await asyncio.open_connection("localhost", extension.port, ssl=context)
    writer.write(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    extension.refresh()
    Path(pair.cert_file).write_text("nonsense")
    with pytest.raises(StartError, match="cert_file"):
        extension.refresh()
