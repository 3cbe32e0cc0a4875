import asyncio

import pytest
from sqlalchemy.exc import IntegrityError

from otelwp_agent.control.errors import StoreError, StoreLockedError
from otelwp_agent.control.group_writer import MAX_GROUP, MAX_WAITING, GroupWriter


class FakeStore:
    """Runs each transaction when the test lets it."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.transactions = 0

    async def write(self, function):
        await self.gate.wait()
        self.transactions += 1
        return function(None)


@pytest.fixture
async def store():
    return FakeStore()


async def test_values_share_transactions_and_get_their_own_results(store):
    writer = GroupWriter(lambda: store, lambda _, values: [value * 2 for value in values])
    done = asyncio.gather(*(writer.write(value) for value in range(MAX_GROUP + 5)))
    await asyncio.sleep(0)
    store.gate.set()
    assert await done == [value * 2 for value in range(MAX_GROUP + 5)]
    await writer.drain()
    assert store.transactions <= 3
    assert await writer.write(4) == 8, "a task is started again"


async def test_a_conflict_fails_only_the_values_that_cause_it(store):
    def record(_, values):
        if 3 in values:
            raise IntegrityError("insert", {}, Exception("duplicate"))
        return values

    store.gate.set()
    writer = GroupWriter(lambda: store, record)
    results = await asyncio.gather(*(writer.write(value) for value in range(5)), return_exceptions=True)
    assert [results[index] for index in (0, 1, 2, 4)] == [0, 1, 2, 4]
    assert isinstance(results[3], StoreLockedError)


@pytest.mark.parametrize("error", [StoreLockedError("locked"), StoreError("other")])
async def test_errors_of_the_store_fail_the_group(store, error):
    def record(_, values):
        raise error

    store.gate.set()
    writer = GroupWriter(lambda: store, record)
    assert await asyncio.gather(writer.write(1), writer.write(2), return_exceptions=True) == [error, error]


async def test_the_number_of_waiting_values_is_bounded(store, monkeypatch):
    monkeypatch.setattr("otelwp_agent.control.group_writer.MAX_WAITING", 2)
    writer = GroupWriter(lambda: store, lambda _, values: values)
    first = asyncio.ensure_future(writer.write(0))
    for _ in range(3):
        await asyncio.sleep(0)  # the first group begins
    waiting = [asyncio.ensure_future(writer.write(value)) for value in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(StoreLockedError, match="waiting"):
        await writer.write(3)
    store.gate.set()
    assert await asyncio.gather(first, *waiting) == [0, 1, 2]
    assert MAX_WAITING > MAX_GROUP


async def test_a_cancelled_request_does_not_harm_the_others(store):
    writer = GroupWriter(lambda: store, lambda _, values: values)
    first, second = (asyncio.ensure_future(writer.write(value)) for value in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    store.gate.set()
    assert await second == 2
    await writer.drain()
