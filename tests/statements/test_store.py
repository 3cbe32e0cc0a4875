import sqlite3
import stat

import pytest

from otelwp_agent.statements.accounts import LedgerSums, PipelineSums, TenantState
from otelwp_agent.statements.store import StatementStore, StatementStoreError, StoredStatement

STATE = TenantState(
    5.0,
    2,
    "a" * 64,
    {"traces": PipelineSums(1, 2, [3, 0, 0, 1], {"x": 1}, 4)},
    {"otlp": [1, 2]},
    {"traces": {"otlp": LedgerSums(9, [1, 2, 3, 0], {})}},
    [{"begin": 1.0, "end": 2.0, "pipelines": True}],
)


def row(number, tenant="shop"):
    return StoredStatement(tenant, number, 10.0 * number, 10.0 * number + 10, f"{number:064x}", f"text {number}")


@pytest.fixture
def store(tmp_path):
    store = StatementStore(tmp_path / "made" / "statements.db")
    yield store
    store.close()


def save(store, states=None, statements=(), *, now=50.0, stopped=False, keep_since=0.0):
    store.save(states or {}, statements, now=now, cut=now, stopped=stopped, keep_since=keep_since)


def test_states_and_statements_survive_and_a_kill_is_known(store):
    first = store.open()
    assert (first.states, first.checkpoint, first.cut) == ({}, None, None)
    save(store, {"shop": STATE}, [row(1), row(2), row(1, "other")])
    store.close()  # without a checkpoint that says so, it was killed
    again = store.open()
    assert (again.states, again.checkpoint, again.cut) == ({"shop": STATE}, 50.0, 50.0)
    assert store.statements("shop", 0, 10) == [row(1), row(2)]
    assert store.statements("shop", 1, 10) == [row(2)]
    assert store.statements("shop", 0, 1) == [row(1)]
    assert store.statements("none", 0, 10) == []
    save(store, now=60.0, stopped=True)
    store.close()
    assert store.open().checkpoint is None
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_a_checkpoint_that_fails_changes_nothing(store):
    store.open()
    save(store, {"shop": STATE}, [row(1)])
    with pytest.raises(StatementStoreError, match="UNIQUE constraint"):
        save(store, {"other": STATE}, [row(2), row(1)], now=99.0)
    store.close()
    again = store.open()
    assert (sorted(again.states), again.checkpoint) == (["shop"], 50.0)
    assert [each.sequence for each in store.statements("shop", 0, 10)] == [1]


def test_old_statements_are_deleted(store):
    store.open()
    save(store, {}, [row(1), row(2)])
    save(store, {}, [row(3)], keep_since=25.0)
    assert [each.sequence for each in store.statements("shop", 0, 10)] == [2, 3]


def test_one_agent_at_a_time_uses_it(store):
    store.open()
    save(store)
    other = StatementStore(store.path)
    with pytest.raises(StatementStoreError, match="is in use by another agent: give each agent its own"):
        other.open()
    other.close()


@pytest.mark.parametrize("content", [b"not a database" * 100, "version", "state"])
def test_a_file_that_cannot_be_used_is_refused(store, content):
    store.path.parent.mkdir()
    if isinstance(content, bytes):
        store.path.write_bytes(content)
    else:
        store.open()
        save(store, {"shop": STATE})
        store.close()
        with sqlite3.connect(store.path) as connection:
            if content == "version":
                connection.execute("UPDATE meta SET value = 9 WHERE name = 'version'")
            else:
                connection.execute("UPDATE tenants SET state = '{}'")
        connection.close()
    why = {"version": "another version of the agent", "state": "the state of tenant shop is damaged"}
    with pytest.raises(StatementStoreError, match="not a database" if isinstance(content, bytes) else why[content]):
        store.open()


def test_a_directory_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StatementStoreError, match=r"cannot use .*: "):
        StatementStore(tmp_path / "file" / "x.db").open()


def test_nothing_is_read_from_a_store_that_is_not_open(store):
    with pytest.raises(StatementStoreError, match="is not open"):
        store.statements("shop", 0, 1)
