import pytest
from pydantic import ValidationError

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.errors import StartError
from otelwp_agent.extensions import bearertokenauth
from otelwp_agent.extensions.headers_setter import FACTORY, Config
from otelwp_agent.model.batch import Origin
from otelwp_agent.testing.fakes import make_context
from tests.kit.graphs import Running, until
from tests.kit.http_peer import HttpPeer, response

ORIGIN = Origin("otlp", "http", "shop", {"x-shop": "one", "auth:sub": "user-1", "x-bad": "a\nb", "x-empty": ""})


def make(*headers, extensions=None, **settings):
    context = make_context(Kind.EXTENSION, "headers_setter", extensions=extensions)
    return FACTORY.build(Config.model_validate({"headers": headers, **settings}), context)


def sent(*headers, origin=ORIGIN, given=None):
    return dict(make(*headers).headers(origin, given or {}))


def test_values_come_from_the_origin_of_the_batch():
    found = sent(
        {"key": "X-Tenant", "from_tenant": True},
        {"key": "X-A", "from_context": "X-Shop"},
        {"key": "X-B", "from_attribute": "sub"},
        {"key": "X-C", "value": "fixed"},
    )
    assert found == {"x-tenant": "shop", "x-a": "one", "x-b": "user-1", "x-c": "fixed"}


@pytest.mark.parametrize("origin", [Origin(), None])
@pytest.mark.parametrize("source", [{"from_tenant": True}, {"from_context": "x-shop"}, {"from_attribute": "sub"}])
def test_without_a_value_the_default_is_sent_or_nothing(origin, source):
    assert sent({"key": "a", **source}, origin=origin) == {}
    assert sent({"key": "a", "default_value": "d", **source}, origin=origin) == {"a": "d"}


@pytest.mark.parametrize("name", ["x-bad", "x-empty"])
def test_a_value_that_cannot_be_sent_counts_as_missing(name):
    assert sent({"key": "a", "from_context": name, "default_value": "d"}) == {"a": "d"}


def test_an_attribute_cannot_be_sent_by_a_client_as_a_header():
    origin = Origin("otlp", "http", headers={"sub": "spoofed", "auth": "sub: spoofed"})
    assert sent({"key": "a", "from_attribute": "sub"}, origin=origin) == {}


def test_actions_look_at_the_configured_headers_and_at_those_set_before():
    given = {"here": "configured"}
    assert sent({"key": "here", "value": "x"}, given=given) == {"here": "x"}
    assert sent({"key": "here", "action": "insert", "value": "x"}, given=given) == {}
    assert sent({"key": "gone", "action": "insert", "value": "x"}, given=given) == {"gone": "x"}
    assert sent({"key": "here", "action": "update", "value": "x"}, given=given) == {"here": "x"}
    assert sent({"key": "gone", "action": "update", "value": "x"}, given=given) == {}
    assert sent({"key": "here", "action": "delete"}, given=given) == {"here": None}
    deleted = {"key": "here", "action": "delete"}, {"key": "here", "action": "insert", "value": "x"}
    assert sent(*deleted, given=given) == {"here": "x"}


def test_a_journal_keeps_the_headers_that_are_read():
    extension = make({"key": "a", "from_context": "X-Shop"}, {"key": "b", "from_attribute": "sub"})
    assert extension.reads == ("x-shop", "auth:sub")


def test_another_extension_adds_its_credential_first_and_is_asked_after_a_401(tmp_path):
    context = make_context(Kind.EXTENSION, "bearertokenauth")
    other = bearertokenauth.FACTORY.build(bearertokenauth.Config(token="s3cret"), context)
    extension = make(
        {"key": "X-Tenant", "from_tenant": True},
        additional_auth="bearertokenauth",
        extensions={ComponentId("bearertokenauth"): other},
    )
    found = extension.headers(ORIGIN, {})
    assert dict(found) == {"authorization": "Bearer s3cret", "x-tenant": "shop"}
    assert extension.rejected(found) is False
    assert extension.rejected((("authorization", "Bearer old"),)) is True
    with pytest.raises(StartError, match="`bearertokenauth` is not available"):
        make({"key": "a", "value": "b"}, additional_auth="bearertokenauth")


async def test_an_exporter_sends_the_headers_of_each_batch():
    running = Running()
    async with HttpPeer(response("200 OK")) as peer:
        await running.go(f"""
receivers: {{hand: }}
exporters:
  otlp_http:
    endpoint: http://127.0.0.1:{peer.port}
    headers: {{x-scope: configured, x-secret: gone}}
    auth: {{authenticator: headers_setter}}
extensions:
  headers_setter:
    headers:
    - {{key: X-Scope, from_tenant: true, default_value: none}}
    - {{key: x-secret, action: delete}}
    - {{key: x-user, from_attribute: sub}}
service:
  tier: pro
  extensions: [headers_setter]
  pipelines: {{traces: {{receivers: [hand], exporters: [otlp_http]}}}}
""")
        (sender,) = running.graph.senders.values()
        assert sender.headers == ("auth:sub",), "a journal keeps what the exporter reads"
        receipt = running.hand.receive()
        await until(lambda: receipt.pending == 0)
        await running.stop()
    (seen,) = peer.seen
    assert seen.headers["x-scope"] == "none"
    assert "x-secret" not in seen.headers


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"key": "a"}, "give one of `value`, `from_context`, `from_attribute` and `from_tenant`"),
        ({"key": "a", "value": "x", "from_tenant": True}, "not 2 of them"),
        ({"key": "a b", "value": "x"}, "is not a header name"),
        ({"key": "Content-Length", "value": "x"}, "is written by the client itself"),
        ({"key": "a", "value": "x\ny"}, "value: the value of 'a' contains a line break"),
        ({"key": "a", "from_tenant": True, "default_value": "x\ny"}, "default_value: the value of 'a'"),
        ({"key": "a", "action": "delete", "value": "x"}, "`value` has no effect with `action: delete`"),
        ({"key": "a", "action": "append", "value": "x"}, "upsert"),
    ],
)
def test_invalid_settings_are_refused(header, words):
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"headers": [header]})
    assert words in str(caught.value)


def test_a_list_without_headers_is_refused():
    with pytest.raises(ValidationError, match="at least 1 item"):
        Config.model_validate({"headers": []})
