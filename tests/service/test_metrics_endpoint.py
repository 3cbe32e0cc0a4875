from __future__ import annotations

import asyncio
import gzip
import shutil
import socket
import subprocess

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from otelwp_agent.config.types import Endpoint
from otelwp_agent.errors import StartError
from otelwp_agent.service.metrics_endpoint import FRESH, MetricsEndpoint, accepts_gzip
from otelwp_agent.telemetry import process
from otelwp_agent.telemetry.metrics import CONTENT_TYPE, Instrument, Registry

REFUSED = Instrument("otelcol_receiver_refused_spans", "Refused.", labels=("receiver", "transport"))


@pytest.fixture
def registry():
    registry = Registry()
    process.observe(registry)
    registry.counter(REFUSED, receiver='otlp/"a"\\\n', transport="http").add(3)
    return registry


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def endpoint(registry, clock):
    endpoint = MetricsEndpoint(
        registry, Endpoint("127.0.0.1:0"), structlog.get_logger(), allowed_hosts=["agent"], clock=clock
    )
    await endpoint.start()
    yield endpoint
    await endpoint.shutdown()


async def ask(endpoint, method="GET", path="/metrics", headers="", host="localhost"):
    """Return status, headers (lower case) and body of one request on a socket of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), fields, body


async def test_serves_what_prometheus_reads(endpoint):
    status, headers, body = await ask(endpoint)
    assert status == 200
    assert headers["content-type"] == CONTENT_TYPE
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert {"otelcol_process_uptime", "otelcol_process_memory_rss", "target_info"} <= set(families)
    (sample,) = families["otelcol_receiver_refused_spans"].samples
    assert (sample.labels, sample.value) == ({"receiver": 'otlp/"a"\\\n', "transport": "http"}, 3)


async def test_scrapes_within_a_moment_are_rendered_once(endpoint, registry, clock):
    sample = b'otelcol_receiver_refused_spans{receiver="b",transport="grpc"} %d\n'
    counter = registry.counter(REFUSED, receiver="b", transport="grpc")
    gzipped = "Accept-Encoding: gzip\r\n"
    for expected in (1, 2):
        counter.add(1)
        assert sample % expected in (await ask(endpoint))[2]
        assert sample % expected in gzip.decompress((await ask(endpoint, headers=gzipped))[2])
        clock.now += FRESH * 0.9
        counter.add(100)
        assert sample % expected in (await ask(endpoint))[2]
        assert sample % expected in gzip.decompress((await ask(endpoint, headers=gzipped))[2])
        assert await ask(endpoint, "HEAD") == await ask(endpoint, "HEAD")
        counter.add(-100)
        clock.now += FRESH * 0.2
    assert FRESH <= 0.5


@pytest.mark.parametrize(("host", "status"), [("agent:8888", 200), ("127.0.0.1", 200), ("evil.example:8888", 403)])
async def test_only_our_own_host_names_are_answered(endpoint, host, status):
    answer = await ask(endpoint, host=host)
    assert answer[0] == status
    if status == 403:
        assert b"`allowed_hosts` of service.telemetry.metrics" in answer[2]


async def test_gzip_if_accepted(endpoint):
    status, headers, body = await ask(endpoint, headers="Accept-Encoding: deflate, gzip;q=0.5\r\n")
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert b"otelcol_process_uptime" in gzip.decompress(body)
    assert "content-encoding" not in (await ask(endpoint))[1]


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP;q=1.0", True),
        ("gzip; q=0", False),
        ("gzip;q=0.000", False),
        ("*", True),
        ("*;q=0.1", True),
        ("*, gzip;q=0", False),
        ("identity", False),
        ("br, zstd", False),
    ],
)
def test_accept_encoding(header, accepted):
    assert accepts_gzip(header) is accepted


async def test_head_has_no_body(endpoint):
    status, headers, body = await ask(endpoint, "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 100


async def test_other_paths_say_which_there_is(endpoint):
    status, _, body = await ask(endpoint, path="/")
    assert status == 404
    assert b"/metrics" in body


async def test_other_methods_are_refused(endpoint):
    status, headers, _ = await ask(endpoint, "POST")
    assert status == 405
    assert headers["allow"] == "get, head"


async def test_a_port_in_use_names_the_setting(registry):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        endpoint = MetricsEndpoint(registry, Endpoint(address), structlog.get_logger())
        with pytest.raises(StartError, match=r"service\.telemetry\.metrics\.address.*none") as caught:
            await endpoint.start()
        assert address in str(caught.value)
        assert "in use" in str(caught.value)
        await endpoint.shutdown()


async def test_shutdown_frees_the_port_and_works_twice_and_before_start(registry):
    endpoint = MetricsEndpoint(registry, Endpoint("127.0.0.1:0"), structlog.get_logger())
    await endpoint.shutdown()
    await endpoint.start()
    port = endpoint.port
    await endpoint.shutdown()
    await endpoint.shutdown()
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_unix_socket(registry, tmp_path):
    path = tmp_path / "metrics.sock"
    endpoint = MetricsEndpoint(registry, Endpoint(f"unix://{path}"), structlog.get_logger())
    await endpoint.start()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    await endpoint.shutdown()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (it comes with Prometheus)")
def test_promtool_reads_it(registry):
    promtool = shutil.which("promtool")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=registry.expose(), text=True, capture_output=True, check=False
    )
    names = 'counter metrics should have "_total" suffix'  # the Collector's names, which dashboards ask for, have none
    complaints = [line for line in done.stderr.splitlines() if names not in line]
    assert done.returncode in (0, 3)
    assert complaints == []
