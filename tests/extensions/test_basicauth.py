import asyncio
import base64

import bcrypt
import pytest
import structlog
from pydantic import ValidationError

from otelwp_agent.component import Kind
from otelwp_agent.config.references import Capability
from otelwp_agent.errors import RetryableError, StartError, UnauthenticatedError
from otelwp_agent.extensions.basicauth import FACTORY, MAX_CHECKS, MAX_KNOWN, Config
from otelwp_agent.testing.fakes import FakeClock, make_context

SLOW = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(7)).decode()
QUICK = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode()


def make(clock=None, **settings):
    context = make_context(Kind.EXTENSION, "basicauth", **({"clock": clock} if clock else {}))
    return FACTORY.build(Config.model_validate(settings), context)


def server(text, **options):
    return make(htpasswd={"inline": text}, **options)


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def client(extension, value):
    return extension.authenticate({} if value is None else {"authorization": value}, "10.0.0.1", None)


def result(extension, user, password):
    try:
        return client(extension, basic(user, password)).credential
    except (UnauthenticatedError, RetryableError) as error:
        return error.reason


async def checked(extension):
    async with asyncio.timeout(60):
        while extension._checks:
            await asyncio.sleep(0.01)  # a thread checks, and reports nothing else


@pytest.mark.parametrize("stored", ["s3cret", QUICK], ids=["plain", "bcrypt"])
def test_the_right_password_is_accepted_and_wrong_ones_are_refused_at_once(stored):
    now = FakeClock()
    extension = server(f"ann:{stored}\nbob:other\n", clock=now)
    assert result(extension, "ann", "s3cret") == "ann"
    assert client(extension, basic("ann", "s3cret")).attributes == {"username": "ann"}
    for user, password in (("ann", "wrong"), ("ann", ""), ("", "s3cret"), ("eve", "s3cret"), ("bob", "s3cret")):
        assert result(extension, user, password) == "unauthenticated"
    assert result(extension, "bob", "other") == "bob"


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "Basic",
        "Basic ",
        "Bearer " + basic("ann", "s3cret")[6:],
        "Basic %%%",
        "Basic YQ==",
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic " + "A" * 2000,
        "Basic \u20ac",
    ],
)
def test_any_other_value_is_refused_with_a_challenge(value):
    extension = server("ann:s3cret")
    with pytest.raises(UnauthenticatedError) as caught:
        client(extension, value)
    assert caught.value.challenges == ('Basic realm="otelwp-agent", charset="UTF-8"',)
    assert str(caught.value) == "a valid credential is needed"


async def test_an_expensive_hash_is_checked_in_a_thread_while_the_sender_waits_to_retry():
    extension = server(f"ann:{SLOW}")
    with pytest.raises(RetryableError, match="being checked") as caught:
        client(extension, basic("ann", "s3cret"))
    assert caught.value.retry_after == 1.0
    assert result(extension, "ann", "s3cret") == "checking_credential"
    assert result(extension, "ann", "wrong") == "checking_credential"
    assert result(extension, "eve", "s3cret") == "checking_credential", "the answer does not show who exists"
    assert len(extension._checks) == 3
    await checked(extension)
    assert result(extension, "ann", "s3cret") == "ann"
    assert result(extension, "ann", "wrong") == "unauthenticated"
    assert result(extension, "eve", "s3cret") == "unauthenticated"
    await extension.shutdown()


async def test_many_wrong_passwords_use_a_bounded_share_of_the_time_and_memory():
    extension = server(f"ann:{SLOW}")
    results = {result(extension, "ann", f"wrong{number}") for number in range(1000)}
    assert results == {"checking_credential"}
    assert len(extension._checks) == MAX_CHECKS
    await extension.shutdown()
    quick = server("ann:s3cret")
    for number in range(MAX_KNOWN + 10):
        assert result(quick, "ann", f"wrong{number}") == "unauthenticated"
    assert len(quick._wrong) <= MAX_KNOWN


async def test_checks_on_the_loop_pause_after_each_other():
    now = FakeClock()
    extension = server(f"ann:{QUICK}", clock=now)
    stored = extension._users["ann"]
    verify = stored._verify

    def slow(password):
        now.now += 0.004
        return verify(password)

    stored._verify = slow
    assert result(extension, "ann", "wrong") == "unauthenticated"
    assert result(extension, "ann", "s3cret") == "checking_credential"
    await checked(extension)
    assert result(extension, "ann", "s3cret") == "ann"
    now.now += 0.1
    assert result(extension, "ann", "other") == "unauthenticated"
    await extension.shutdown()


# --- the file ---


async def test_a_changed_file_replaces_the_users_and_inline_ones_stay(tmp_path):
    file = tmp_path / "htpasswd"
    file.write_text("ann:one\nbob:file\n")
    extension = make(htpasswd={"file": str(file), "inline": "bob:inline"})
    await extension.start()
    assert [result(extension, *pair) for pair in (("ann", "one"), ("bob", "inline"), ("bob", "file"))] == [
        "ann",
        "bob",
        "unauthenticated",
    ]
    version = extension.version
    file.write_text("ann:two\n")
    extension.refresh()
    assert extension.version > version
    assert [result(extension, "ann", password) for password in ("one", "two")] == ["unauthenticated", "ann"]
    file.write_text("ann\n")
    with pytest.raises(StartError, match="line 1: write `user:password`"):
        extension.refresh()
    assert not extension.health().healthy
    assert result(extension, "ann", "two") == "ann"
    await extension.shutdown()


async def test_a_missing_or_invalid_file_fails_the_start(tmp_path):
    with pytest.raises(StartError, match="none: cannot be read"):
        await make(htpasswd={"file": str(tmp_path / "none")}).start()
    with pytest.raises(StartError, match=r"extensions/basicauth: htpasswd.inline: line 1: the hash") as caught:
        server("ann:$9$s3cret$")
    assert "s3cret" not in str(caught.value)


# --- clients ---


def test_a_client_sends_user_and_password_in_utf_8():
    extension = make(client_auth={"username": "ann", "password": "p\u00e4ss:word"})
    assert extension.headers(None, {}) == (("authorization", basic("ann", "p\u00e4ss:word")),)
    assert extension.rejected(extension.headers(None, {})) is False


async def test_a_client_reads_its_files_again_after_a_401(tmp_path):
    user, password = tmp_path / "user", tmp_path / "password"
    user.write_text("ann\n")
    password.write_text("one\n")
    extension = make(client_auth={"username_file": str(user), "password_file": str(password)})
    with pytest.raises(RetryableError, match="no password yet"):
        extension.headers(None, {})
    await extension.start()
    sent = extension.headers(None, {})
    assert sent == (("authorization", basic("ann", "one")),)
    assert extension.rejected(sent) is False
    password.write_text("second\n")
    with structlog.testing.capture_logs() as logs:
        assert extension.rejected(sent) is True
    assert "second" not in str(logs)
    assert extension.headers(None, {}) == (("authorization", basic("ann", "second")),)
    user.write_text("a:b\n")
    with pytest.raises(StartError, match="must not contain a colon"):
        extension.refresh()
    await extension.shutdown()


# --- the configuration ---


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "give either `htpasswd`, for servers, or `client_auth`"),
        (
            {"htpasswd": {"inline": "a:b"}, "client_auth": {"username": "a", "password": "b"}},
            "give either `htpasswd`, for servers, or `client_auth`",
        ),
        ({"htpasswd": {}}, "no user is given: give `file` or `inline`"),
        ({"client_auth": {"password": "b"}}, "give either `username` or `username_file`"),
        ({"client_auth": {"username": "a"}}, "give either `password` or `password_file`"),
        ({"client_auth": {"username": "a:b", "password": "b"}}, "`username` must not contain a colon"),
    ],
)
def test_invalid_settings_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        Config.model_validate(settings)


def test_each_side_says_what_it_lacks_for_the_other():
    ours = Config.model_validate({"htpasswd": {"inline": "a:b"}})
    theirs = Config.model_validate({"client_auth": {"username": "a", "password": "b"}})
    assert ours.lack(Capability.SERVER_AUTHENTICATOR) == theirs.lack(Capability.CLIENT_AUTHENTICATOR) == ""
    assert "it has no `client_auth`" in ours.lack(Capability.CLIENT_AUTHENTICATOR)
    assert "it has no `htpasswd`" in theirs.lack(Capability.SERVER_AUTHENTICATOR)
