import asyncio
import json
import logging

import pytest

from otelwp_agent.admin.models import ApiModel
from otelwp_agent.admin.operation import ApiOperation
from otelwp_agent.admin.problems import ProblemError
from otelwp_agent.control import audit
from otelwp_agent.control.errors import StoreLockedError


async def test_errors_have_one_form_and_name_the_request(api):
    answers = [
        await api.raw("GET", "/api/v1/me", x_request_id="r-1"),
        await api.call("GET", "/nothing", x_request_id="r-1"),
        await api.call("DELETE", "/tenants", x_request_id="r-1"),
        await api.call("GET", "/tenants/nobody", x_request_id="r-1"),
        await api.call("POST", "/tenants", {"id": "acme"}, x_request_id="r-1"),
        await api.call("POST", "/tenants", {"id": "Not Valid"}, x_request_id="r-1"),
        await api.call("GET", "/tenants?limit=0", x_request_id="r-1"),
        await api.call("GET", "/operators", by="wpo_op_wrong", x_request_id="r-1"),
        await api.call("GET", "/audit-log", by="viewer", x_request_id="r-1"),
    ]
    assert [each.status for each in answers] == [401, 404, 405, 404, 409, 422, 422, 401, 403]
    for each in answers:
        assert each.content_type == "application/problem+json"
        assert each.headers["X-Request-Id"] == each.json["request_id"] == "r-1"
        assert (each.json["type"], each.json["status"]) == ("about:blank", each.status)
        assert each.json["title"]
        assert each.json["detail"]
        assert each.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("given", ["", "with space", "x" * 65, "<script>"])
async def test_an_unusable_request_id_is_replaced(api, given):
    answer = await api.call("GET", "/me", x_request_id=given)
    assert answer.headers["X-Request-Id"] not in {"", given}


async def test_405_names_the_methods(api):
    answer = await api.call("PATCH", "/tenants", {})
    assert answer.headers["Allow"] == "GET, HEAD, POST"
    assert (await api.call("POST", "/plans/free", {})).headers["Allow"] == "DELETE, GET, HEAD, PUT"
    assert (await api.raw("POST", "/openapi.json")).headers["Allow"] == "GET, HEAD"


async def test_head_is_answered_as_get(api):
    assert (await api.call("HEAD", "/me")).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 415), (b"{", 400), (b"\xff", 400), (b"[]", 422), (b"null", 422), (b'{"id": "a", "id": 5}', 422)],
)
async def test_bodies_that_are_no_tenant(api, body, status):
    content = {"content_type": "application/json"} if body else {}
    answer = await api.raw("POST", "/api/v1/tenants", body, authorization=f"Bearer {api.tokens['admin']}", **content)
    assert answer.status == status


async def test_each_invalid_value_has_its_place(api):
    answer = await api.call("POST", "/tenants", {"id": "A", "attributes": {"a/b": 1}, "more": 1, "name": " "})
    assert {each["pointer"] for each in answer.json["errors"]} == {"#/id", "#/attributes/a~1b", "#/more", "#/name"}
    many = await api.call("POST", "/tenants", {f"x{number}": 1 for number in range(100)})
    assert len(many.json["errors"]) == 20


async def test_nesting_without_end_is_refused(api):
    deep = b'{"id":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    answer = await api.raw(
        "POST",
        "/api/v1/tenants",
        deep,
        authorization=f"Bearer {api.tokens['admin']}",
        content_type="application/json",
    )
    assert answer.status == 400


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_other_media_types_are_refused(api, content_type):
    authorization = f"Bearer {api.tokens['admin']}"
    answer = await api.raw(
        "POST", "/api/v1/tenants", b'{"id": "a"}', authorization=authorization, content_type=content_type
    )
    assert answer.status == 415
    compressed = await api.call("POST", "/tenants", {"id": "a"}, content_encoding="gzip")
    assert compressed.status == 415


@pytest.mark.parametrize(
    "query", ["limit=1&limit=2", "limit=1_0", "limit=%ff", "other=1", "limit=501", "cursor=!", "plan=", "a&" * 30]
)
async def test_invalid_queries_are_refused(api, query):
    assert (await api.call("GET", f"/tenants?{query}")).status == 422


async def test_a_repeated_request_gets_the_same_answer_and_changes_nothing(api):
    first = await api.call("POST", "/tenants", {"id": "new"}, idempotency_key="k", x_request_id="1")
    again = await api.call("POST", "/tenants", {"id": "new"}, idempotency_key="k", x_request_id="2")
    assert (first.status, first.json) == (again.status, again.json)
    assert first.status == 201
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert [event.request_id for event in await api.log()] == ["1"]


async def test_an_idempotency_key_belongs_to_one_request_of_one_operator(api):
    await api.call("POST", "/tenants", {"id": "new"}, idempotency_key="k")
    assert (await api.call("POST", "/tenants", {"id": "other"}, idempotency_key="k")).status == 409
    assert (await api.call("POST", "/tenants/acme/keys", {}, idempotency_key="k")).status == 409
    assert (await api.call("POST", "/tenants", {"id": "other"}, by="operator", idempotency_key="k")).status == 201
    assert (await api.call("POST", "/tenants", {"id": "more"}, idempotency_key="ä")).status == 422


async def test_a_secret_is_not_repeated_and_not_stored(api):
    first = await api.call("POST", "/tenants/acme/keys", {}, idempotency_key="k")
    again = await api.call("POST", "/tenants/acme/keys", {}, idempotency_key="k")
    assert first.json["key"].startswith("wpo_live_")
    assert again.json == {**first.json, "key": None}
    assert first.json["key"] not in str(await api.log())


async def test_a_refused_request_may_be_repeated_with_its_key(api):
    assert (await api.call("POST", "/tenants", {"id": "new", "plan": "gold"}, idempotency_key="k")).status == 409
    assert (await api.call("PUT", "/plans/gold", {"tier": "pro"})).status == 200
    assert (await api.call("POST", "/tenants", {"id": "new", "plan": "gold"}, idempotency_key="k")).status == 201


async def test_the_same_request_at_the_same_time_is_carried_out_once(api):
    request = [api.call("POST", "/tenants", {"id": "new"}, idempotency_key="k") for _ in range(5)]
    answers = await asyncio.gather(*request)
    assert {each.status for each in answers} == {201}
    assert len(await api.log()) == 1


async def test_a_store_that_is_away_is_503(api, monkeypatch):
    async def away(function):
        raise StoreLockedError("control store x: locked")

    monkeypatch.setattr(api.store.store, "write", away)
    answer = await api.call("POST", "/tenants", {"id": "new"})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json["detail"] == "control store x: locked"


class _Nothing(ApiModel):
    pass


def operation(handler, **more):
    return ApiOperation("GET", "/api/v1/extra", "extra", "Extra", handler, answer=_Nothing, **more)


async def test_a_fault_is_500_without_details(api, caplog):
    def fails(connection, call):
        raise RuntimeError("secret detail")

    api.routes.mount("other", [operation(fails)])
    with caplog.at_level(logging.CRITICAL):
        answer = await api.call("GET", "/extra")
    assert answer.status == 500
    assert "secret detail" not in json.dumps(answer.json)


async def test_a_handler_runs_beside_the_event_loop_and_its_changes_are_undone_if_it_refuses(api):
    import threading

    seen = []

    def handler(connection, call):
        seen.append(threading.current_thread().name)
        raise ProblemError(409, "no")

    api.routes.mount("other", [operation(handler)])
    assert (await api.call("GET", "/extra")).status == 409
    assert seen[0].startswith("control-store")


async def test_a_foreign_host_is_refused(api):
    answer = await api.raw("GET", "/openapi.json", host="evil.example")
    assert answer.status == 403
    assert "allowed_hosts" in answer.json["detail"]


async def test_the_document_follows_what_is_mounted(api):
    before = (await api.raw("GET", "/openapi.json")).json
    api.routes.mount("other", [operation(lambda connection, call: {})])
    after = (await api.raw("GET", "/openapi.json")).json
    assert after["paths"].keys() - before["paths"].keys() == {"/api/v1/extra"}
    assert (await api.call("GET", "/extra")).json == {}


async def test_every_change_is_in_a_log_that_is_intact(api):
    await api.call("POST", "/tenants", {"id": "new"}, by="operator", x_request_id="r-7")
    (event,) = await api.log()
    assert (event.actor, event.action, event.target) == ("operator:the-operator", "tenant.create", "new")
    assert event.request_id == "r-7"
    assert not (await api.store.store.read(audit.verify)).problems
