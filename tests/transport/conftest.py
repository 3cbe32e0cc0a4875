from __future__ import annotations

import asyncio

import uvloop

BOTH = ("test_http_client.py",)
"""Files whose tests run on both event loops: the agent runs on uvloop, and asyncio defines what is right."""


def pytest_asyncio_loop_factories(item):
    factories = {"asyncio": asyncio.new_event_loop}
    if item.path.name in BOTH:
        factories["uvloop"] = uvloop.new_event_loop
    return factories
