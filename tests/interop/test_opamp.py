"""Agents with opamp-go's client report to the OpAMP server."""

import asyncio

import pytest
from peers import golang

from otelwp_agent.control.fleet.agents import get_agent
from otelwp_agent.control.fleet.installations import list_installations
from tests.interop.process import have
from tests.kit.agent import PATIENCE
from tests.kit.opamp import OpampSite

pytestmark = pytest.mark.interop


async def agent_when(site, condition):
    """Return the only agent in the store as soon as `condition` holds for it."""

    def find(connection):
        return [get_agent(connection, each.id) for each in list_installations(connection)]

    async with asyncio.timeout(PATIENCE):
        while True:
            found = await site.read(find)
            if found and condition(found[0]):
                (agent,) = found
                return agent
            await asyncio.sleep(0.05)  # the store does not announce changes


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_opamp_go_reports(tmp_path, scheme):
    program = await asyncio.to_thread(have, golang.opamp_agent)
    async with OpampSite(tmp_path) as site:
        url = site.url.replace("http", scheme, 1)
        process = await asyncio.create_subprocess_exec(
            program, url, site.keys["acme"], stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            agent = await agent_when(site, lambda each: each.components)
            assert agent.attributes == {"service.name": "opamp-go", "service.version": "0.23.0"}
            assert (agent.healthy, list(agent.components)) == (True, ["receivers/otlp"])
            assert agent.effective_config == {"": "receivers: {otlp: }"}
            process.stdin.write(b"queue is full\n")
            await process.stdin.drain()
            agent = await agent_when(site, lambda each: not each.healthy)
            assert agent.health["last_error"] == "queue is full"
        finally:
            if process.returncode is None:
                process.stdin.close()
                try:
                    async with asyncio.timeout(PATIENCE):
                        out = await process.stdout.read()
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()
                    raise
        assert b"connected" in out
        assert b"refused" not in out
        assert site.value("messages", transport="http" if scheme == "http" else "websocket") >= 3
