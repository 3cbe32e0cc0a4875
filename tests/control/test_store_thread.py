import asyncio
import threading

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from otelwp_agent.control import store_thread
from otelwp_agent.control.errors import StoreError, StoreLockedError
from otelwp_agent.control.operations import tenants
from otelwp_agent.control.store_thread import StoreThread
from otelwp_agent.control.tables import PLANS


@pytest.fixture
async def thread(store):
    thread = StoreThread(store)
    await thread.open()
    yield thread
    await thread.close()


def names(connection):
    return [tenant.id for tenant in tenants.list_tenants(connection)]


async def test_reads_and_writes_run_in_another_thread(thread, actor):
    made = await thread.write(lambda connection: tenants.create_tenant(connection, actor, "acme"))
    assert made.id == "acme"
    assert await thread.read(names) == ["acme"]
    assert await thread.read(lambda _: threading.current_thread().name) == "control-store_0"


async def test_waiting_writes_share_a_transaction_and_fail_alone(thread, actor):
    began = []
    write = thread.store.write
    thread.store.write = lambda: began.append(1) or write()
    holding, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold():
        loop.call_soon_threadsafe(holding.set)
        release.wait(60)

    held = asyncio.ensure_future(thread.run(hold))
    await holding.wait()
    writes = [
        asyncio.ensure_future(thread.write(lambda connection, id_=id_: tenants.create_tenant(connection, actor, id_)))
        for id_ in ("a", "b", "a", "NO", "c")
    ]
    await asyncio.sleep(0)
    release.set()
    results = await asyncio.gather(*writes, return_exceptions=True)
    await held
    assert [type(result).__name__ for result in results] == [
        *("Tenant", "Tenant", "ConflictError", "InvalidValueError", "Tenant"),
    ]
    assert len(began) == 1
    assert await thread.read(names) == ["a", "b", "c"]


async def test_a_conflict_of_rows_concerns_one_write_only(thread, actor):
    def twice(connection):
        connection.execute(insert(PLANS).from_select(list(PLANS.c), PLANS.select()))

    first, second = await asyncio.gather(
        thread.write(twice),
        thread.write(lambda connection: tenants.create_tenant(connection, actor, "acme")),
        return_exceptions=True,
    )
    assert isinstance(first, IntegrityError)
    assert second.id == "acme"


async def test_an_error_of_the_database_rolls_all_back(thread, actor):
    results = await asyncio.gather(
        thread.write(lambda connection: tenants.create_tenant(connection, actor, "acme")),
        thread.write(lambda connection: connection.execute(text("SELECT nonsense"))),
        return_exceptions=True,
    )
    assert isinstance(results[1], StoreError)
    later = await thread.read(names)
    assert (later == ["acme"]) == (not isinstance(results[0], BaseException))


async def test_too_many_waiting_transactions_are_refused(thread, monkeypatch):
    monkeypatch.setattr(store_thread, "MAX_WAITING", 3)
    release = threading.Event()
    held = [asyncio.ensure_future(thread.run(lambda: release.wait(60))) for _ in range(3)]
    await asyncio.sleep(0)
    for attempt in (thread.read(names), thread.write(names)):
        with pytest.raises(StoreLockedError, match="3 transactions are waiting: try again later"):
            await attempt
    assert not thread._writes
    release.set()
    await asyncio.gather(*held)
    assert await thread.read(names) == []


async def test_a_write_that_was_cancelled_before_it_began_is_left_out(thread, actor):
    release = threading.Event()
    held = asyncio.ensure_future(thread.run(lambda: release.wait(60)))
    await asyncio.sleep(0)
    write = asyncio.ensure_future(thread.write(lambda connection: tenants.create_tenant(connection, actor, "acme")))
    await asyncio.sleep(0)
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    release.set()
    await held
    assert await thread.read(names) == []


async def test_close_waits_for_what_was_given_before(store, actor):
    thread = StoreThread(store)
    write = asyncio.ensure_future(thread.write(lambda connection: tenants.create_tenant(connection, actor, "acme")))
    await asyncio.sleep(0)
    await thread.close()
    assert (await write).id == "acme"
    with store.read() as connection:
        assert names(connection) == ["acme"]
