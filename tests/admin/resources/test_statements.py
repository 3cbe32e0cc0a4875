import pytest

from otelwp_agent.admin.resources.statements import operations
from otelwp_agent.statements.store import StatementStore, StoredStatement


@pytest.fixture
def served(api, tmp_path):
    """Return the admin API with three statements of `acme` and one of `globex`."""
    store = StatementStore(tmp_path / "statements.db")
    store.open()
    rows = [
        StoredStatement(tenant, number, 3600.0 * number, 3600.0 * (number + 1), f"{number:064x}", f"{tenant} {number}")
        for tenant, count in (("acme", 3), ("globex", 1))
        for number in range(1, count + 1)
    ]
    store.save({}, rows, now=1.0, cut=1.0, stopped=False, keep_since=0.0)
    api.routes.mount("delivery_statements", operations(store))
    yield api
    store.close()


async def test_statements_are_listed_in_pages(served):
    first = await served.call("GET", "/tenants/acme/statements?limit=2", by="viewer")
    assert (first.status, [each["text"] for each in first.json["items"]]) == (200, ["acme 1", "acme 2"])
    assert first.json["items"][0] == {
        "sequence": 1,
        "begin": "1970-01-01T01:00:00+00:00",
        "end": "1970-01-01T02:00:00+00:00",
        "hash": f"{1:064x}",
        "text": "acme 1",
    }
    rest = await served.raw(
        "GET", first.json["next"], authorization=f"Bearer {served.tokens['viewer']}", content_type="application/json"
    )
    assert ([each["text"] for each in rest.json["items"]], rest.json["next"]) == (["acme 3"], None)


async def test_a_key_with_the_scope_usage_reads_those_of_its_tenant_only(served):
    key = await served.key("globex", "usage")
    mine = await served.call("GET", "/tenants/globex/statements", by=key)
    assert [each["text"] for each in mine.json["items"]] == ["globex 1"]
    assert (await served.call("GET", "/tenants/acme/statements", by=key)).status in {403, 404}
    other = await served.key("globex", "ingest")
    assert (await served.call("GET", "/tenants/globex/statements", by=other)).status == 403
    assert (await served.call("GET", "/tenants/globex/statements", by="nobody")).status == 401


@pytest.mark.parametrize("cursor", ["x", "00", "3"])
async def test_an_invalid_cursor_is_refused(served, cursor):
    assert (await served.call("GET", f"/tenants/acme/statements?cursor={cursor}", by="viewer")).status in {400, 422}
