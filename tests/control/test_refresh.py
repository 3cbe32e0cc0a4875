import asyncio

import pytest
import structlog

from otelwp_agent.control import refresh
from otelwp_agent.control.directory import TenantDirectory
from otelwp_agent.control.errors import StoreNotMigratedError, StoreUnreachableError
from otelwp_agent.control.operations import keys, tenants
from otelwp_agent.control.refresh import Refresher
from otelwp_agent.control.store import Store
from otelwp_agent.control.store_thread import StoreThread
from tests.kit.graphs import until

INTERVAL = 0.05


@pytest.fixture
async def refresher(store, hasher):
    thread = StoreThread(store)
    log = structlog.get_logger()
    refresher = Refresher(thread, TenantDirectory(hasher), INTERVAL, clock=lambda: 7.0, log=log)
    await refresher.load()
    yield refresher
    await refresher.stop()
    await thread.close()


@pytest.fixture
def other(url, actor):
    """Return a function that changes the store as another process would."""
    store = Store(url)

    def change(operation, *arguments, **options):
        with store.write() as connection:
            return operation(connection, actor, *arguments, **options)

    change.store = store
    yield change
    store.close()


async def test_each_change_of_another_process_is_read(refresher, other, hasher):
    target = refresher._target
    refresher.start()
    other(tenants.create_tenant, "acme")
    key, _ = other(keys.create_key, hasher, "acme")
    await until(lambda: target.current.key(key.id) is not None)
    version = target.version
    other(keys.revoke_key, key.id)
    await until(lambda: target.current.key(key.id) is None)
    assert target.version > version
    assert (target.error, target.refreshed_at, refresher.failures) == ("", 7.0, 0)


async def test_without_a_change_the_version_stays(refresher):
    target = refresher._target
    directory, version = target.current, target.version
    await refresher.refresh()
    assert (target.current, target.version) == (directory, version)


async def test_the_directory_stays_while_the_store_is_unreachable(refresher, other, hasher, monkeypatch):
    monkeypatch.setattr(refresh, "RETRY", 0.01)
    target = refresher._target
    other(tenants.create_tenant, "acme")
    key, _ = other(keys.create_key, hasher, "acme")
    await refresher.refresh()
    read, away = refresher._thread.store.read, [True]

    def fail():
        if away:
            raise StoreUnreachableError("the server cannot be reached")
        return read()

    monkeypatch.setattr(refresher._thread.store, "read", fail)
    refresher.start()
    await until(lambda: refresher.failures >= 2)
    assert target.error == "the server cannot be reached"
    assert target.current.key(key.id) is not None
    other(keys.revoke_key, key.id)
    away.clear()
    await until(lambda: target.current.key(key.id) is None)
    assert target.error == ""


async def test_the_first_load_raises(url, hasher):
    thread = StoreThread(Store(url))
    refresher = Refresher(thread, TenantDirectory(hasher), 1.0, clock=lambda: 0.0, log=structlog.get_logger())
    with pytest.raises(StoreNotMigratedError):
        await refresher.load()
    await thread.close()


async def test_a_store_that_was_restored_with_the_same_version_is_read_as_a_whole(refresher, other, tmp_path, actor):
    if not refresher._thread.store.is_sqlite:
        pytest.skip("only a file can be replaced")
    other(tenants.create_tenant, "before")
    await refresher.refresh()
    backup = Store(f"sqlite:///{tmp_path}/backup.db")
    backup.migrate()
    with backup.write() as connection:
        tenants.create_tenant(connection, actor, "restored")
    backup.close()
    other.store.close()
    path = refresher._thread.store.path
    for left in path.parent.glob(f"{path.name}-*"):
        left.unlink()
    (tmp_path / "backup.db").replace(path)
    await refresher.refresh()
    assert [tenant.id for tenant in refresher._target.current.tenants] == ["restored"]


@pytest.mark.parametrize("url", [pytest.param("postgresql", marks=pytest.mark.interop)], indirect=True)
async def test_notifications_are_used_and_come_again_after_a_restart(refresher, other, postgresql, url):
    target, listener = refresher._target, refresher._listener
    refresher._interval = 60.0
    refresher.start()
    await until(lambda: listener.connected)
    other(tenants.create_tenant, "acme")
    await until(lambda: target.current.tenant("acme") is not None)
    await asyncio.to_thread(postgresql.stop)
    await until(lambda: not listener.connected)
    await refresher.refresh()
    assert "cannot be reached" in target.error
    assert target.current.tenant("acme") is not None
    await asyncio.to_thread(postgresql.__enter__)
    await until(lambda: listener.connected, seconds=20)
    await until(lambda: not target.error, seconds=20)
    other.store.close()
    other(tenants.create_tenant, "later")
    await until(lambda: target.current.tenant("later") is not None)


async def test_stop_repeats_a_cancellation_that_was_lost(refresher, monkeypatch):
    monkeypatch.setattr(refresh, "CANCEL_AGAIN", 0.01)
    lost = []

    async def lose():
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(1)

    refresher._tasks = [asyncio.ensure_future(lose())]
    await asyncio.sleep(0)
    await refresher.stop()
    assert lost
