"""Operations on the control store, and that each change is in the audit log."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from otelwp_agent.control import api_keys, audit, snapshot
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.errors import ConflictError, InvalidValueError, UnknownNameError
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations import idempotency, keys, operators, plans, tenants, values
from otelwp_agent.control.operations.idempotency import StoredAnswer
from otelwp_agent.control.operations.operators import Role
from otelwp_agent.control.tables import IDEMPOTENCY, KEYS, OPERATORS


@pytest.fixture
def change(store, actor):
    """Run an operation that changes something in a transaction of its own."""

    def run(operation, *arguments, **options):
        with store.write() as connection:
            return operation(connection, actor, *arguments, **options)

    return run


@pytest.fixture
def look(store):
    """Run an operation that reads in a transaction of its own."""

    def run(operation, *arguments, **options):
        with store.read() as connection:
            return operation(connection, *arguments, **options)

    return run


@pytest.fixture
def refused(change, look):
    """Check that an operation is refused with a message and has changed nothing."""

    def run(error, message, operation, *arguments, **options):
        before = look(snapshot.version), look(audit.verify).head
        with pytest.raises(error, match=message):
            change(operation, *arguments, **options)
        assert (look(snapshot.version), look(audit.verify).head) == before

    return run


def actions(look):
    return [event.event.action for event in look(audit.list_events)][::-1]


class TestTenants:
    def test_life(self, change, look):
        made = change(tenants.create_tenant, "acme", name=" Acme Inc. ", attributes={"region": "eu"})
        assert (made.name, made.plan, made.status, made.attributes) == ("Acme Inc.", "free", "active", {"region": "eu"})
        assert look(tenants.get_tenant, "acme") == made
        assert made.created.tzinfo is not None
        assert abs(datetime.now(UTC) - made.created) < timedelta(minutes=5)
        assert change(tenants.suspend_tenant, "acme").status == "suspended"
        assert change(tenants.resume_tenant, "acme").status == "active"
        assert change(tenants.set_tenant_plan, "acme", "pro").plan == "pro"
        last = change(tenants.update_tenant, "acme", name="Acme", attributes={})
        assert look(tenants.get_tenant, "acme") == last
        assert (last.name, last.attributes, last.plan) == ("Acme", {}, "pro")
        assert actions(look) == [f"tenant.{what}" for what in ("create", "suspend", "resume", "set_plan", "update")]

    def test_pages(self, change, look):
        for number in range(5):
            change(tenants.create_tenant, f"t{number}", plan=("free", "pro")[number % 2])
        change(tenants.suspend_tenant, "t2")

        def ids(**options):
            return [tenant.id for tenant in look(tenants.list_tenants, **options)]

        assert ids() == ["t0", "t1", "t2", "t3", "t4"]
        assert ids(limit=2) == ["t0", "t1"]
        assert ids(limit=2, after="t1") == ["t2", "t3"]
        assert ids(plan="pro") == ["t1", "t3"]
        assert ids(status="suspended") == ["t2"]

    @pytest.mark.parametrize(
        "id_", ["", "A", "a b", "-a", "a-", "a" * 64, "é", "a\n", "a/b", "'; DROP TABLE tenants; --"]
    )
    def test_an_invalid_id(self, refused, id_):
        refused(InvalidValueError, "is not a valid id of a tenant: use 1 to 63", tenants.create_tenant, id_)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"name": "x" * 201}, "is not a valid name of a tenant"),
            ({"name": "a\x1b[31m"}, "is not a valid name of a tenant"),
            ({"attributes": {"": "x"}}, "an attribute needs a name"),
            ({"attributes": {"a": "x\0"}}, "printable characters"),
            ({"attributes": {"a": "x" * 257}}, "printable characters"),
            ({"attributes": {"a": 5}}, "printable characters"),
            ({"attributes": {str(number): "" for number in range(33)}}, "33 attributes are too many"),
        ],
    )
    def test_invalid_settings(self, refused, options, message):
        refused(InvalidValueError, message, tenants.create_tenant, "acme", **options)

    def test_what_does_not_exist_or_exists_already(self, change, refused, look):
        change(tenants.create_tenant, "acme")
        refused(ConflictError, "there is a tenant acme already", tenants.create_tenant, "acme")
        refused(UnknownNameError, "there is no plan 'gold'", tenants.create_tenant, "other", plan="gold")
        refused(UnknownNameError, "there is no plan 'gold'", tenants.set_tenant_plan, "acme", "gold")
        refused(UnknownNameError, "there is no tenant 'other'", tenants.suspend_tenant, "other")
        for limit in (0, -1, values.MAX_PAGE + 1):
            with pytest.raises(InvalidValueError, match="limit must be from 1 to 1000"):
                look(tenants.list_tenants, limit=limit)


class TestPlans:
    def test_life(self, change, look):
        made = change(plans.set_plan, "gold", tier="pro", limits={"request_burst": 9, "items_per_second": 0.5})
        assert look(plans.get_plan, "gold") == made
        changed = change(plans.set_plan, "gold", tier="enterprise", limits={}, retention_days=30)
        assert look(plans.get_plan, "gold") == changed
        assert [plan.name for plan in look(plans.list_plans)] == ["enterprise", "free", "gold", "pro"]
        assert [plan.name for plan in look(plans.list_plans, after="free", limit=1)] == ["gold"]
        change(plans.delete_plan, "gold")
        assert "gold" not in [plan.name for plan in look(plans.list_plans)]
        first, second, third = [event.event for event in look(audit.list_events)][::-1]
        assert first.before == "null"
        assert second.before == first.after
        assert (third.before, third.after) == (second.after, "null")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"tier": "gold"}, "is not a tier: use free, pro, enterprise"),
            ({"limits": {"spans": 5}}, "spans: no such limit; the limits are requests_per_second"),
            *(
                ({"limits": {"byte_burst": wrong}}, "byte_burst must be a number above 0")
                for wrong in (0, -1, float("nan"), float("inf"), True, "5")
            ),
            ({"retention_days": 0}, "retention_days must be from 1"),
        ],
    )
    def test_invalid_settings(self, refused, options, message):
        refused(InvalidValueError, message, plans.set_plan, "gold", **{"tier": "pro", "limits": {}, **options})

    def test_a_plan_of_tenants_cannot_be_deleted(self, change, refused):
        change(tenants.create_tenant, "acme")
        refused(ConflictError, "plan free has 1 tenant: give them another plan", plans.delete_plan, "free")
        refused(UnknownNameError, "there is no plan 'gold'", plans.delete_plan, "gold")


class TestKeys:
    @pytest.fixture(autouse=True)
    def tenant(self, change):
        change(tenants.create_tenant, "acme")

    def test_life(self, change, look, hasher):
        key, text = change(keys.create_key, hasher, "acme", scopes=[Scope.USAGE, Scope.INGEST])
        assert api_keys.parse(text) == key.id
        assert key.scopes == (Scope.INGEST, Scope.USAGE)
        assert look(keys.get_key, key.id) == look(keys.get_key, f"wpo_live_{key.id}") == look(keys.get_key, text) == key
        assert (key.is_live(datetime.now(UTC)), key.state(datetime.now(UTC))) == (True, "live")
        revoked = change(keys.revoke_key, key.id)
        assert (look(keys.get_key, key.id), revoked.state(datetime.now(UTC))) == (revoked, "revoked")
        assert change(keys.revoke_key, key.id).revoked == revoked.revoked
        assert look(keys.list_keys, tenant="acme") == [revoked]
        assert look(keys.list_keys, live=True) == []

    def test_the_store_and_the_audit_log_do_not_contain_the_secret(self, change, look, hasher):
        _, text = change(keys.create_key, hasher, "acme")
        secret = text[26:]
        row = look(lambda connection: connection.execute(select(KEYS)).one())
        assert row.hash == hasher.hash(text)
        assert secret not in str(row)
        assert secret not in str(look(audit.list_events))

    def test_an_expired_key(self, change, look, hasher, store):
        key, _ = change(keys.create_key, hasher, "acme", expires=datetime.now(UTC) + timedelta(hours=1))
        assert key.is_live(key.expires - timedelta(seconds=1))
        assert key.state(key.expires) == "expired"
        assert look(keys.get_key, key.id).expires == key.expires

    def test_two_live_keys_of_a_name(self, change, refused, hasher):
        first, _ = change(keys.create_key, hasher, "acme", name="shop")
        second, _ = change(keys.create_key, hasher, "acme", name="shop")
        message = f"has 2 live keys named shop already .{first.id}, {second.id}.: revoke one of them"
        refused(ConflictError, message, keys.create_key, hasher, "acme", name="shop")
        refused(ConflictError, message, keys.rotate_key, hasher, first.id)
        change(keys.create_key, hasher, "acme", name="other")
        change(keys.revoke_key, first.id)
        change(keys.create_key, hasher, "acme", name="shop")

    def test_rotation_with_grace(self, change, look, hasher):
        old, _ = change(keys.create_key, hasher, "acme", name="shop", scopes=[Scope.HEARTBEAT])
        new, text = change(keys.rotate_key, hasher, old.id, grace=timedelta(hours=2))
        assert (new.tenant, new.name, new.scopes, new.expires) == ("acme", "shop", (Scope.HEARTBEAT,), None)
        assert api_keys.parse(text) == new.id != old.id
        ends = look(keys.get_key, old.id).expires
        assert abs(ends - new.created - timedelta(hours=2)) < timedelta(seconds=1)
        assert actions(look)[-2:] == ["key.retire", "key.rotate"]

    def test_rotation_does_not_extend_a_key_and_can_end_it_at_once(self, change, look, refused, hasher):
        soon = datetime.now(UTC) + timedelta(minutes=5)
        old, _ = change(keys.create_key, hasher, "acme", expires=soon)
        new, _ = change(keys.rotate_key, hasher, old.id)
        assert look(keys.get_key, old.id).expires == soon
        change(keys.revoke_key, old.id)
        change(keys.rotate_key, hasher, new.id, grace=timedelta(0))
        assert look(keys.get_key, new.id).revoked is not None
        refused(ConflictError, f"key {new.id} is revoked: create a new key", keys.rotate_key, hasher, new.id)

    def test_refused(self, refused, look, hasher):
        now = datetime.now(UTC)
        refused(UnknownNameError, "there is no tenant 'other'", keys.create_key, hasher, "other")
        refused(InvalidValueError, "at least one scope", keys.create_key, hasher, "acme", scopes=[])
        refused(InvalidValueError, "has passed", keys.create_key, hasher, "acme", expires=now - timedelta(seconds=1))
        naive = now.replace(tzinfo=None) + timedelta(days=1)
        refused(InvalidValueError, "no time zone", keys.create_key, hasher, "acme", expires=naive)
        refused(InvalidValueError, "valid name of a key", keys.create_key, hasher, "acme", name="A b")
        refused(InvalidValueError, "must not be negative", keys.rotate_key, hasher, "x", grace=timedelta(-1))
        with pytest.raises(InvalidValueError, match="all: no such scope; the scopes are heartbeat"):
            keys.parse_scopes(["ingest", "all"])
        with pytest.raises(UnknownNameError, match="there is no tenant 'other'"):
            look(keys.list_keys, tenant="other")

    def test_an_unknown_key_is_named_without_its_secret(self, refused, hasher):
        text = api_keys.generate(hasher).text
        with pytest.raises(AssertionError):
            refused(UnknownNameError, text[26:40], keys.revoke_key, text)
        refused(UnknownNameError, f"there is no API key with the id '{text[9:25]}'", keys.revoke_key, text)

    def test_the_last_use_is_stored_without_a_change(self, change, look, store, hasher):
        key, _ = change(keys.create_key, hasher, "acme")
        before = look(snapshot.version)
        used = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
        with store.write() as connection:
            keys.record_use(connection, {key.id: used, "unknown": used})
            keys.record_use(connection, {})
        assert look(keys.get_key, key.id).last_used == used
        assert look(snapshot.version) == before

    def test_pages(self, change, look, hasher):
        made = sorted(change(keys.create_key, hasher, "acme", name=f"n{number}").key.id for number in range(4))
        assert [key.id for key in look(keys.list_keys, limit=3)] == made[:3]
        assert [key.id for key in look(keys.list_keys, after=made[2])] == made[3:]


class TestOperators:
    def test_life(self, change, look, hasher):
        operator, token = change(operators.add_operator, hasher, "alice", Role.VIEWER)
        assert look(operators.authenticate_operator, hasher, token) == operator == look(operators.get_operator, "alice")
        assert change(operators.set_role, "alice", Role.ADMIN).role is Role.ADMIN
        changed, second = change(operators.rotate_token, hasher, "alice")
        assert look(operators.authenticate_operator, hasher, token) is None
        assert look(operators.authenticate_operator, hasher, second) == changed
        assert look(operators.list_operators) == [changed]
        change(operators.remove_operator, "alice")
        assert look(operators.authenticate_operator, hasher, second) is None
        assert look(operators.list_operators) == []
        assert actions(look) == [f"operator.{what}" for what in ("add", "set_role", "rotate_token", "remove")]

    def test_tokens_are_stored_as_hashes(self, change, look, hasher):
        _, token = change(operators.add_operator, hasher, "alice", Role.VIEWER)
        row = look(lambda connection: connection.execute(select(OPERATORS)).one())
        assert row.token_hash == hasher.hash(token)
        assert token[24:] not in str(row) + str(look(audit.list_events))

    def test_wrong_tokens(self, change, look, hasher):
        operator, token = change(operators.add_operator, hasher, "alice", Role.VIEWER)
        other = api_keys.generate(hasher, api_keys.OPERATOR_TOKEN)
        forged = api_keys.generate(api_keys.Hasher(b"x" * 32), api_keys.OPERATOR_TOKEN)
        for wrong in ("", "x", token[:-1], other.text, forged.text, token.replace(operator.token_id, other.id)):
            assert look(operators.authenticate_operator, hasher, wrong) is None

    def test_refused(self, change, refused, hasher):
        change(operators.add_operator, hasher, "alice", Role.VIEWER)
        refused(
            ConflictError, "there is an operator alice already", operators.add_operator, hasher, "alice", Role.ADMIN
        )
        refused(InvalidValueError, "name of an operator", operators.add_operator, hasher, "A", Role.ADMIN)
        refused(UnknownNameError, "there is no operator 'bob'", operators.remove_operator, "bob")
        with pytest.raises(InvalidValueError, match="'root' is not a role: use viewer, operator, admin"):
            operators.parse_role("root")

    def test_roles_include_the_ones_before(self):
        assert [Role.OPERATOR.includes(role) for role in Role] == [True, True, False]


class TestIdempotency:
    def test_an_answer_is_found_for_the_same_request_only(self, change, look, actor):
        change(idempotency.store_answer, "key-1", "a" * 64, StoredAnswer(201, '{"id": 1}'))
        found = look(idempotency.find_answer, actor, "key-1", "a" * 64)
        assert found == StoredAnswer(201, '{"id": 1}')
        assert look(idempotency.find_answer, actor, "key-2", "a" * 64) is None
        assert look(idempotency.find_answer, Actor("operator:bob"), "key-1", "a" * 64) is None
        with pytest.raises(ConflictError, match="was used for another request: use a new one"):
            look(idempotency.find_answer, actor, "key-1", "b" * 64)

    def test_old_answers_are_deleted(self, change, look, actor, monkeypatch):
        change(idempotency.store_answer, "old", "a" * 64, StoredAnswer(200, ""))
        monkeypatch.setattr(idempotency, "KEPT", timedelta(0))
        assert look(idempotency.find_answer, actor, "old", "a" * 64) is None
        change(idempotency.store_answer, "new", "a" * 64, StoredAnswer(200, ""))
        assert look(lambda connection: connection.execute(select(IDEMPOTENCY.c.key)).scalars().all()) == ["new"]
