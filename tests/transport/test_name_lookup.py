"""Addresses of a name, whatever the name service does."""

from __future__ import annotations

import asyncio
import socket

import pytest

from otelwp_agent.transport.name_lookup import LookupFailedError, NameLookup, system_lookup


def looking_up(*answers):
    """Return a look-up that gives one answer after the other."""
    left = list(answers)

    async def lookup(_hostname, _port):
        answer = left.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return await answer if asyncio.isfuture(answer) else answer

    return NameLookup("samplers.example", 4317, timeout=0.01, lookup=lookup)


async def test_addresses_are_sorted_and_each_is_given_once():
    names = looking_up(["b:1", "a:1", "b:1"])
    assert await names.resolve() == ["a:1", "b:1"]


@pytest.mark.parametrize("answer", [socket.gaierror("unknown"), UnicodeError("label too long"), []])
async def test_a_name_without_addresses(answer):
    with pytest.raises(LookupFailedError, match=r"`samplers\.example` has no address"):
        await looking_up(answer).resolve()


async def test_a_late_answer_is_the_next_result_and_no_second_lookup_starts_meanwhile():
    late = asyncio.get_running_loop().create_future()
    names = looking_up(late)
    for _ in range(2):
        with pytest.raises(LookupFailedError, match=r"not resolved within 0\.01 s"):
            await names.resolve()
    late.set_result(["a:1"])
    assert await names.resolve() == ["a:1"]
    await names.aclose()


async def test_closing_stops_a_lookup():
    names = looking_up(asyncio.get_running_loop().create_future())
    with pytest.raises(LookupFailedError):
        await names.resolve()
    await names.aclose()
    await names.aclose()


async def test_the_system_is_asked():
    assert set(await system_lookup("127.0.0.1", 4317)) == {"127.0.0.1:4317"}
    assert set(await system_lookup("::1", 4317)) == {"[::1]:4317"}
