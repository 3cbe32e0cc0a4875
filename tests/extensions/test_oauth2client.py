import asyncio
import base64
import contextlib
from urllib.parse import parse_qs

import orjson
import pytest
import structlog
from pydantic import ValidationError

from otelwp_agent.component import Kind
from otelwp_agent.errors import RetryableError, StartError
from otelwp_agent.extensions import oauth2client
from otelwp_agent.extensions.oauth2client import FACTORY, SHORTEST_LIFE, Config
from otelwp_agent.testing.fakes import FakeClock, make_context
from tests.kit.graphs import until
from tests.kit.http_peer import HttpPeer, response


def token(name="t1", **answer):
    return response("200 OK", orjson.dumps({"access_token": name, "token_type": "Bearer", "expires_in": 3600} | answer))


class Issuer:
    """An authorization server that gives the next of its answers, and the last one again and again."""

    def __init__(self, *answers):
        self.answers = [*answers]

    async def __call__(self, _seen):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextlib.asynccontextmanager
async def running(*answers, clock=None, **settings):
    async with HttpPeer(Issuer(*answers)) as peer:
        context = make_context(Kind.EXTENSION, "oauth2client", **({"clock": clock} if clock else {}))
        url = f"http://127.0.0.1:{peer.port}/token?a=b"
        config = {"client_id": "agent:1", "client_secret": "s3 cret", "token_url": url, **settings}
        extension = FACTORY.build(Config.model_validate(config), context)
        await extension.start()
        try:
            yield extension, peer
        finally:
            await extension.shutdown()
            await extension.shutdown()


def credential(extension):
    return dict(extension.headers(None, {}))["authorization"]


async def test_a_token_is_requested_in_the_background_and_sent():
    async with running(token(), scopes=["a", "b"], endpoint_params={"audience": "x", "r": ["1", "2"]}) as (ours, peer):
        with pytest.raises(RetryableError, match="no access token yet: no token was requested yet"):
            ours.headers(None, {})
        assert not ours.health().healthy
        await until(lambda: ours.health().healthy)
        assert credential(ours) == "Bearer t1"
    (seen,) = peer.seen
    assert seen.line == "POST /token?a=b HTTP/1.1"
    assert base64.b64decode(seen.headers["authorization"].split()[1]) == b"agent%3A1:s3+cret"
    assert parse_qs(seen.body.decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["a b"],
        "audience": ["x"],
        "r": ["1", "2"],
    }


async def test_a_server_that_wants_the_secret_in_the_body_gets_it_there():
    async with running(response("401 Unauthorized"), token("t1", expires_in=1.2), token("t2")) as (ours, peer):
        await until(lambda: ours.health().healthy and credential(ours) == "Bearer t2")
    bodies = [parse_qs(seen.body.decode()) for seen in peer.seen]
    assert ["client_secret" in body for body in bodies] == [False, True, True]
    assert (bodies[1]["client_id"], bodies[1]["client_secret"]) == (["agent:1"], ["s3 cret"])
    assert ["authorization" in seen.headers for seen in peer.seen] == [True, False, False]


async def test_a_failure_is_retried_and_reported_without_the_secret(monkeypatch):
    monkeypatch.setattr(oauth2client, "FIRST_RETRY", 0.01)
    refusal = response("400 Bad Request", b'{"error": "invalid_client", "error_description": "s3 cret is wrong"}')
    answers = (refusal, refusal, response("503 Service Unavailable"), response("200 OK", b"<html>"), token())
    with structlog.testing.capture_logs() as logs:
        async with running(*answers) as (ours, _):
            await until(lambda: ours.health().healthy)
    errors = [entry["error"] for entry in logs if entry["event"] == "no access token"]
    assert errors == [
        "the authorization server answered HTTP 400: invalid_client",
        "HTTP 503",
        "the authorization server answered without a usable `access_token`",
    ]
    assert "cret" not in str(logs)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"access_token": ""}',
        b'{"access_token": 5}',
        b'{"access_token": "a b"}',
        b'{"access_token": "a\\r\\nX-Injected: 1"}',
        b'{"access_token": "\xc3\xa4"}',
        b'{"access_token": "a", "token_type": "mac"}',
        b'{"access_token": "a", "token_type": 1}',
        b"\xff" * 1000,
    ],
)
async def test_an_invalid_answer_gives_no_token(answer):
    async with running(response("200 OK", answer)) as (ours, peer):
        await until(lambda: "authorization server answered" in ours.health().message)
        with pytest.raises(RetryableError, match="no access token yet"):
            ours.headers(None, {})
    assert len(peer.seen) == 1


@pytest.mark.parametrize("life", [None, "soon", "60", -1, 0, 1e999, {}])
async def test_a_lifetime_that_makes_no_sense_is_replaced(life):
    answer = {"access_token": "t1"} | ({} if life is None else {"expires_in": life})
    body = orjson.dumps(answer) if life != 1e999 else b'{"access_token": "t1", "expires_in": 1e999}'
    async with running(response("200 OK", body)) as (ours, _):
        await until(lambda: ours.health().healthy or "usable" in ours.health().message)
        assert ours.health().healthy is (life != 1e999), "JSON has no infinity"


async def test_a_token_is_not_used_after_its_end():
    now = FakeClock(100.0)
    async with running(token("t1", expires_in=600), clock=now) as (ours, _):
        await until(lambda: ours.health().healthy)
        now.now += 599
        assert credential(ours) == "Bearer t1"
        now.now += 1
        with pytest.raises(RetryableError, match="the token has expired"):
            ours.headers(None, {})


async def test_a_refused_token_is_replaced_once_but_not_a_fresh_one():
    now = FakeClock(100.0)
    async with running(token("t1"), token("t2"), clock=now) as (ours, peer):
        await until(lambda: ours.health().healthy)
        sent = ours.headers(None, {})
        assert ours.rejected(sent) is False, "a fresh token would be refused again"
        now.now += SHORTEST_LIFE
        assert ours.rejected(sent) is True
        assert ours.rejected(sent) is True, "another request with the same token"
        await until(lambda: ours.health().healthy)
        assert credential(ours) == "Bearer t2"
        assert ours.rejected(sent) is True, "it has been replaced meanwhile"
        assert len(peer.seen) == 2


async def test_id_and_secret_are_read_from_files(tmp_path):
    identifier, secret = tmp_path / "id", tmp_path / "secret"
    identifier.write_text("from-file\n")
    secret.write_text("hidden\n")
    files = {"client_id": "", "client_secret": None, "client_id_file": str(identifier)}
    async with running(token(), **files, client_secret_file=str(secret)) as (ours, peer):
        await until(lambda: ours.health().healthy)
        secret.write_text("")
        with pytest.raises(StartError, match="is empty"):
            ours.refresh()
    assert base64.b64decode(peer.seen[0].headers["authorization"].split()[1]) == b"from-file:hidden"
    identifier.unlink()
    with pytest.raises(StartError, match="cannot be read"):
        async with running(token(), **files, client_secret_file=str(secret)):
            pass


async def test_a_server_that_does_not_answer_blocks_nothing():
    async def never(_seen):
        await asyncio.Event().wait()

    async with HttpPeer(never) as peer:
        config = {
            "client_id": "a",
            "client_secret": "b",
            "token_url": f"http://127.0.0.1:{peer.port}",
            "timeout": "50ms",
        }
        ours = FACTORY.build(Config.model_validate(config), make_context(Kind.EXTENSION, "oauth2client"))
        await ours.start()
        await until(lambda: "did not answer within 50ms" in ours.health().message)
        await ours.shutdown()


BASE = {"client_id": "a", "client_secret": "b", "token_url": "https://login.example/token"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"client_id": ""}, "give either `client_id` or `client_id_file`"),
        ({"client_id_file": "/x"}, "give either `client_id` or `client_id_file`"),
        ({"client_secret": None}, "give either `client_secret` or `client_secret_file`"),
        ({"token_url": "login.example"}, "is not a URL"),
        ({"token_url": "unix:///run/x"}, "is not a URL: write one like `https://login.example/oauth2/token`"),
        ({"token_url": "https://me:pass@login.example"}, "must not contain a password"),
        ({"timeout": "0s"}, "greater than 0"),
        ({"endpoint_params": {"grant_type": "password"}}, "'grant_type' is set by the agent itself"),
    ],
)
def test_invalid_settings_are_refused(settings, words):
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(BASE | settings)
    assert words in str(caught.value)
