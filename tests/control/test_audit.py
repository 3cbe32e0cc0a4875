import json

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from otelwp_agent.control import audit
from otelwp_agent.control.errors import InvalidValueError, StoreError
from otelwp_agent.control.operations import keys, tenants
from otelwp_agent.control.tables import AUDIT


@pytest.fixture
def rows(store, actor, hasher):
    """Write ten rows to the audit log; return a function that changes them behind its back."""
    with store.write() as connection:
        tenants.create_tenant(connection, actor, "acme")
        keys.create_key(connection, actor, hasher, "acme")
        for number in range(4):
            (tenants.suspend_tenant, tenants.resume_tenant)[number % 2](connection, actor, "acme")
        for number in range(4):
            tenants.create_tenant(connection, actor, f"tenant-{number}")

    def tamper(statement):
        with store.write() as connection:
            if store.is_sqlite:
                connection.execute(text("DROP TRIGGER IF EXISTS audit_log_refuses_update"))
                connection.execute(text("DROP TRIGGER IF EXISTS audit_log_refuses_delete"))
            else:
                connection.execute(text("DROP TRIGGER IF EXISTS audit_log_refuses_change ON audit_log"))
            connection.execute(text(statement))

    return tamper


def verify(store, *heads):
    with store.read() as connection:
        return audit.verify(connection, heads)


def test_rows_say_who_changed_what_without_secrets(store, rows, actor):
    with store.read() as connection:
        events = audit.list_events(connection)
        assert [event.sequence for event in events] == list(range(10, 0, -1))
        first, second = events[-1].to_json(), events[-2].to_json()
        assert (first["actor"], first["request_id"], first["action"], first["target"]) == (
            "operator:alice",
            "request-1",
            "tenant.create",
            "acme",
        )
        assert (first["before"], first["after"]["status"]) == (None, "active")
        assert second["action"] == "key.create"
        assert set(second["after"]) == {
            *("id", "tenant", "name", "scopes", "created", "expires", "revoked", "last_used"),
        }
        assert [each.sequence for each in audit.list_events(connection, before=4, limit=2)] == [3, 2]
        assert {each.event.action for each in audit.list_events(connection, target="acme")} == {
            *("tenant.create", "tenant.suspend", "tenant.resume"),
        }


def test_an_intact_log(store, rows):
    found = verify(store)
    assert (found.rows, found.problems, found.head.sequence) == (10, (), 10)
    assert audit.LogHead.parse(str(found.head)) == found.head
    assert verify(store, found.head, audit.LogHead(0, audit.FIRST_HASH)).problems == ()
    assert found.to_json()["intact"]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE audit_log SET actor = 'operator:bob' WHERE sequence = 4", "row 4 was altered"),
        ("UPDATE audit_log SET target = 'other' WHERE sequence = 10", "row 10 was altered"),
        ("UPDATE audit_log SET after = '{}' WHERE sequence = 1", "row 1 was altered"),
        ("UPDATE audit_log SET time = '2020-01-01 00:00:00.000000' WHERE sequence = 2", "row 2 was altered"),
        ("UPDATE audit_log SET hash = previous_hash WHERE sequence = 5", "row 5 was altered"),
        ("UPDATE audit_log SET previous_hash = hash WHERE sequence = 5", "row 5 does not continue row 4"),
        ("DELETE FROM audit_log WHERE sequence = 5", "row 5 is missing"),
        ("DELETE FROM audit_log WHERE sequence IN (1, 2)", "rows 1 to 2 are missing"),
        ("DELETE FROM audit_log WHERE sequence > 8", "the log's end was changed"),
        ("DELETE FROM audit_log", "the log's end was changed"),
        ("UPDATE store_state SET audit_hash = 'x'", "the log's end was changed"),
    ],
)
def test_an_altered_log_is_found(store, rows, statement, problem):
    rows(statement)
    found = verify(store)
    assert any(problem in each for each in found.problems), found
    assert not found.to_json()["intact"]


def test_a_log_that_was_written_again_is_found_with_an_earlier_head(store, rows):
    head = verify(store).head
    rows("DELETE FROM audit_log")
    with store.write() as connection:
        connection.execute(
            text("UPDATE store_state SET audit_sequence = 0, audit_hash = :hash"), {"hash": audit.FIRST_HASH}
        )
    assert verify(store).problems == ()
    assert "row 10 of the given head is missing" in verify(store, head).problems[0]
    assert "row 1 is not" not in str(verify(store, audit.LogHead(1, "0" * 64)).problems)


def test_another_row_at_the_place_of_the_head_is_found(store, rows):
    assert "row 3 is not the one of the given head" in verify(store, audit.LogHead(3, "0" * 64)).problems[0]


def test_problems_are_bounded(store, rows, monkeypatch):
    monkeypatch.setattr(audit, "MAX_PROBLEMS", 3)
    rows("UPDATE audit_log SET actor = 'x'")
    assert len(verify(store).problems) == 3


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log"])
def test_the_database_refuses_to_change_rows(store, rows, statement):
    with pytest.raises((StoreError, DBAPIError), match="the audit log is append-only"), store.write() as connection:
        connection.execute(text(statement))
    assert verify(store).rows == 10


def test_a_row_with_invalid_json_can_be_listed(store, rows):
    rows("UPDATE audit_log SET after = '{' WHERE sequence = 10")
    with store.read() as connection:
        assert json.loads(json.dumps(audit.list_events(connection)[0].to_json()))["after"] == "{"


def test_names_of_any_length_are_cut(store, actor):
    from otelwp_agent.control.mutation import Actor, Mutation

    with store.write() as connection:
        Mutation(connection, Actor("x" * 500, "y" * 500)).audit("test", "z" * 500)
    assert verify(store).problems == ()


def test_a_forged_row_needs_the_right_hash(store, rows):
    with store.write() as connection:
        event = audit.list_events(connection)[0]
        values = {name: getattr(event.event, name) for name in event.event.__slots__}
        connection.execute(insert(AUDIT).values(**values, sequence=11, previous_hash=event.hash, hash="f" * 64))
    assert any("row 11 was altered" in problem for problem in verify(store).problems)


@pytest.mark.parametrize("head", ["", "5", "x:" + "0" * 64, "5:abc", "-1:" + "0" * 64, "²:" + "0" * 64])
def test_an_invalid_head_is_refused(head):
    with pytest.raises(InvalidValueError, match="SEQUENCE:HASH"):
        audit.LogHead.parse(head)
