from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from otelwp_agent.control import snapshot
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.directory import Directory
from otelwp_agent.control.operations import keys, plans, tenants
from otelwp_agent.control.tables import STATE


def read(store, old=None):
    with store.read() as connection:
        return snapshot.load(connection) if old is None else snapshot.update(connection, old)


@pytest.fixture
def key(store, actor, hasher):
    """Return a key of a tenant on its own plan."""
    with store.write() as connection:
        plans.set_plan(connection, actor, "gold", tier="pro", limits={"items_per_second": 5}, retention_days=7)
        tenants.create_tenant(connection, actor, "acme", plan="gold", attributes={"region": "eu"})
        return keys.create_key(connection, actor, hasher, "acme", scopes=[Scope.USAGE, Scope.INGEST])


def test_a_directory_has_keys_with_their_tenants_and_plans(store, key, hasher):
    directory = read(store)
    entry = directory.key(key.key.id)
    assert hasher.matches(key.text, entry.hash)
    assert (entry.tenant.id, entry.tenant.active, dict(entry.tenant.attributes)) == ("acme", True, {"region": "eu"})
    assert entry.scopes == {"ingest", "usage"}
    assert entry.expires_at == float("inf")
    assert dict(directory.plan(entry.tenant.plan).limits) == {"items_per_second": 5}
    assert (directory.plan("gold").tier, directory.plan("gold").retention_days) == ("pro", 7)
    assert directory.key("unknown") is None
    assert directory.tenant("acme") is entry.tenant
    assert directory.tenant("unknown") is None


def test_nothing_is_read_if_nothing_has_changed(store, key):
    directory = read(store)
    with store.write() as connection:
        keys.record_use(connection, {key.key.id: datetime.now(UTC)})
    assert read(store, directory) is directory


def test_each_change_is_found_and_the_old_directory_stays(store, key, actor, hasher):
    old = read(store)
    with store.write() as connection:
        tenants.suspend_tenant(connection, actor, "acme")
        second = keys.create_key(connection, actor, hasher, "acme", expires=datetime.now(UTC) + timedelta(hours=1))
    new = read(store, old)
    assert new.version > old.version
    assert not new.key(key.key.id).tenant.active
    assert new.key(second.key.id).expires_at == second.key.expires.timestamp()
    assert old.key(key.key.id).tenant.active
    assert old.key(second.key.id) is None
    with store.write() as connection:
        keys.revoke_key(connection, actor, key.key.id)
        plans.delete_plan(connection, actor, "pro")
    last = read(store, new)
    assert last.key(key.key.id) is None
    assert "pro" not in last.plans
    assert read(store) == last


def test_an_older_store_is_read_as_a_whole(store, key):
    directory = read(store)
    with store.write() as connection:
        connection.execute(update(STATE).values(version=1))
    assert read(store, directory) == Directory(1, directory.plans, directory.tenants, directory.numbers, directory.keys)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_updates_give_the_same_as_reading_everything(tmp_path_factory, data):
    from otelwp_agent.control.api_keys import Hasher
    from otelwp_agent.control.errors import OperationError
    from otelwp_agent.control.mutation import Actor
    from otelwp_agent.control.store import Store

    store = Store(f"sqlite:///{tmp_path_factory.mktemp('store')}/control.db")
    store.migrate()
    actor, hasher = Actor("test"), Hasher(b"x" * 32)
    directory, made = Directory(), []
    names = st.sampled_from(["a", "b", "c"])
    try:
        for _ in range(data.draw(st.integers(1, 12))):
            with store.write() as connection:
                try:
                    match data.draw(st.integers(0, 4)):
                        case 0:
                            tenants.create_tenant(connection, actor, data.draw(names))
                        case 1:
                            made.append(keys.create_key(connection, actor, hasher, data.draw(names)).key.id)
                        case 2 if made:
                            keys.revoke_key(connection, actor, data.draw(st.sampled_from(made)))
                        case 3:
                            tenants.suspend_tenant(connection, actor, data.draw(names))
                        case 4:
                            plans.set_plan(connection, actor, data.draw(names), tier="free", limits={"item_burst": 3})
                except OperationError:
                    pass
            if data.draw(st.booleans()):
                directory = read(store, directory)
        directory = read(store, directory)
        whole = read(store)
        assert (directory.plans, directory.version) == (whole.plans, whole.version)
        assert {id_: directory.key(id_) for id_ in directory.keys} == {id_: whole.key(id_) for id_ in whole.keys}
        assert sorted(directory.tenants) == sorted(whole.tenants)
    finally:
        store.close()
