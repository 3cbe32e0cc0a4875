from __future__ import annotations

import asyncio

import pytest
import structlog
import uvloop

from otelwp_agent.config import blocks
from otelwp_agent.config.types import Endpoint
from otelwp_agent.transport.http_client import HttpClient

BOTH = ("test_http_client.py", "test_http_client_tls.py")
"""Files whose tests run on both event loops: the agent runs on uvloop, and asyncio defines what is right."""


def pytest_asyncio_loop_factories(item):
    factories = {"asyncio": asyncio.new_event_loop}
    if item.path.name in BOTH:
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture
async def client_of():
    """Return a started client of an endpoint; all are closed in the end."""
    clients = []

    async def make(endpoint: str, **settings) -> HttpClient:
        client = HttpClient(
            blocks.HttpClient(**settings), Endpoint(endpoint), name="exporters/otlp_http", log=structlog.get_logger()
        )
        clients.append(client)
        await client.start()
        return client

    yield make
    for client in clients:
        await client.aclose()
