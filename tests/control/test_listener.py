import asyncio

import pytest
import structlog

from otelwp_agent.control import listener
from otelwp_agent.control.database import parse_url
from otelwp_agent.control.listener import Listener
from otelwp_agent.control.mutation import Actor, Mutation
from otelwp_agent.telemetry.tasks import spawn
from tests.kit.graphs import until


async def stop(task):
    """Cancel until it has ended: `asyncio.wait_for`, which psycopg uses, may lose one."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)


async def test_a_server_that_does_not_answer_is_tried_again(monkeypatch):
    monkeypatch.setattr(listener, "FIRST_WAIT", 0.001)
    tried = []
    listening = Listener(parse_url("postgresql://me@127.0.0.1:1/x"), lambda: None, structlog.get_logger())
    listen = listening._listen
    listening._listen = lambda: tried.append(1) or listen()
    task = spawn(listening.run(), name="test")
    await until(lambda: len(tried) >= 3)
    assert not listening.connected
    await stop(task)


@pytest.mark.parametrize("url", [pytest.param("postgresql", marks=pytest.mark.interop)], indirect=True)
async def test_each_change_is_notified(store, url):
    notified = []
    listening = Listener(parse_url(url), lambda: notified.append(1), structlog.get_logger())
    task = spawn(listening.run(), name="test")
    await until(lambda: listening.connected)
    assert len(notified) == 1

    def change():
        with store.write() as connection:
            Mutation(connection, Actor("test"))

    await asyncio.to_thread(change)
    await until(lambda: len(notified) == 2)
    await stop(task)
