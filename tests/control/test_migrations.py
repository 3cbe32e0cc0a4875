import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import delete, insert, inspect, select

import otelwp_agent.control.fleet.tables  # noqa: F401 - adds its tables to METADATA
from otelwp_agent.control import migrations, revisions
from otelwp_agent.control.errors import StoreNotMigratedError
from otelwp_agent.control.store import Store
from otelwp_agent.control.tables import METADATA, PLANS, REVISION, STATE


def test_the_scripts_are_those_that_the_agent_knows():
    assert migrations.scripts() == list(revisions.NEEDS)
    assert migrations.scripts()[-1] == revisions.HEAD


def test_the_migrated_tables_are_those_of_the_code(store):
    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = [
            each for each in compare_metadata(context, METADATA) if getattr(each[1], "name", "") != REVISION.name
        ]
        assert differences == []
        wanted = {(table.name, index.name) for table in METADATA.tables.values() for index in table.indexes}
        found = {
            (table, index["name"])
            for table in METADATA.tables
            for index in inspect(connection).get_indexes(table)
            if not index["unique"]
        }
        assert found == wanted


def test_an_upgrade_that_fails_changes_nothing(url, monkeypatch):
    def fail(connection, target):
        real(connection, target)
        raise RuntimeError

    real = migrations.upgrade
    monkeypatch.setattr(migrations, "upgrade", fail)
    store = Store(url)
    for _ in range(2):
        try:
            store.migrate()
        except RuntimeError:
            continue
        raise AssertionError
    monkeypatch.undo()
    assert store.migrate() == (None, revisions.HEAD)
    store.close()


def test_two_processes_that_migrate_at_once_do_it_once(url):
    from concurrent.futures import ThreadPoolExecutor

    def migrate():
        store = Store(url)
        try:
            return store.migrate()
        finally:
            store.close()

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(migrate) for _ in range(2)]
        assert sorted(str(each.result()) for each in done) == [
            f"('{revisions.HEAD}', '{revisions.HEAD}')",
            f"(None, '{revisions.HEAD}')",
        ]


def test_a_store_with_data_is_not_changed_by_another_migration(store):
    with store.write() as connection:
        connection.execute(delete(PLANS).where(PLANS.c.name == "free"))
        connection.execute(insert(PLANS).from_select(list(PLANS.c), select(PLANS).where(PLANS.c.name == "none")))
        before = connection.execute(select(STATE)).one()
    store.migrate()
    with store.read() as connection:
        assert connection.execute(select(STATE)).one() == before
        assert connection.execute(select(PLANS.c.name).order_by(PLANS.c.name)).scalars().all() == ["enterprise", "pro"]


def test_an_older_store_is_upgraded_and_keeps_its_data(url):
    store = Store(url)
    oldest = next(iter(revisions.NEEDS))
    if store.is_sqlite:
        store._file.create()
    with store._transaction(write=True, check=False) as connection:
        migrations.upgrade(connection, oldest)
        connection.execute(delete(PLANS).where(PLANS.c.name == "free"))
    store.close()
    with pytest.raises(StoreNotMigratedError, match="control migrate"):
        store.open()
    assert store.migrate() == (oldest, revisions.HEAD)
    with store.read() as connection:
        assert connection.execute(select(PLANS.c.name).order_by(PLANS.c.name)).scalars().all() == ["enterprise", "pro"]
        assert inspect(connection).has_table("licenses")
        assert inspect(connection).has_table("plugin_installations")
        assert revisions.needs(connection) == revisions.NEEDS[revisions.HEAD]
    store.close()
