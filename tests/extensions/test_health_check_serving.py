"""How the health check is served: by a thread of its own, over TLS, to allowed networks and hosts."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from pathlib import Path

import pytest

from otelwp_agent.component import Stall
from otelwp_agent.errors import StartError
from otelwp_agent.extensions import health_check
from otelwp_agent.transport.side_loop import SIDE_LOOP
from tests.kit.agent import free_port
from tests.kit.certificates import Authority
from tests.kit.health_checks import EXPORTER, RECEIVER, ask, ask_json, build, failing


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
    assert released.wait(60)  # blocks the main loop until the side loop has answered
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
