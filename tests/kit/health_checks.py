"""The extension `health_check`, a service for it to report on, and requests to it."""

import asyncio
import json
from dataclasses import dataclass, field

import structlog

from otelwp_agent.component import ComponentHealth, ComponentId, Context, Kind, Stall
from otelwp_agent.extensions.health_check import Config, HealthCheck
from otelwp_agent.telemetry.metrics import Registry

EXPORTER = ComponentHealth(Kind.EXPORTER, "otlp_http", healthy=True, details={"queue_size": 3, "data_type": "traces"})
RECEIVER = ComponentHealth(Kind.RECEIVER, "otlp", healthy=True)
BORN = 1_795_184_645.0  # 2026-11-20T14:24:05Z


def failing(times=1, message="connection refused"):
    """Return the health of an exporter that has failed so often."""
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

    def control(self, path):
        return None

    def stall(self):
        return self.stalled


def build(host, clock, **settings):
    """Return the extension; 1 h 2 min 5 s after the start, by the wall clock."""
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


async def ask(extension, path, method="GET", host="localhost"):
    """Send a request; return the status and the body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", extension.port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


async def ask_json(extension, path):
    """Send a request; return the status and the decoded body of the answer."""
    status, body = await ask(extension, path)
    return status, json.loads(body)
