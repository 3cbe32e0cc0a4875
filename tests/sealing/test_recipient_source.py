import asyncio
import contextlib
import time
from collections import Counter

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.config.recipients import RecipientsConfig
from otelwp_agent.errors import RetryableError, StartError
from otelwp_agent.licensing.public_keys import encode_base64url
from otelwp_agent.licensing.signatures import generate_key
from otelwp_agent.sealing import recipient_source
from otelwp_agent.sealing.recipient_source import RecipientSource
from otelwp_agent.sealing.suites import SealingSuite
from otelwp_agent.transport import watched_file
from tests.kit.graphs import until
from tests.kit.key_sets import Owner, Publisher


class Source(RecipientSource):
    def __init__(self, suites=SealingSuite, now=time.time, **settings):
        self.results = Counter()
        config = RecipientsConfig.model_validate(settings)
        log = structlog.get_logger()
        super().__init__(config, suites, name="processors/encryption", log=log, read=self._tally, now=now)

    def _tally(self, result):
        self.results[result] += 1

    @property
    def key_id(self):
        return self.current().key_id


@contextlib.asynccontextmanager
async def running(*arguments, **settings):
    source = Source(*arguments, **settings)
    await source.start()
    try:
        yield source
    finally:
        await source.stop()
        await source.stop()


@pytest.fixture
def owner():
    return Owner()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(recipient_source, "FIRST_RETRY", 0.02)
    monkeypatch.setattr(recipient_source, "RENEW_EVERY", 0.05)
    monkeypatch.setattr(watched_file, "CHECK", 0.02)


async def test_keys_in_the_configuration_are_used():
    keys = [(suite.name, suite.public_bytes(suite.generate())) for suite in (*SealingSuite, SealingSuite.X25519)]
    inline = [
        {"key_id": str(place), "suite": suite, "public_key": encode_base64url(public)}
        for place, (suite, public) in enumerate(keys)
    ]
    async with running(keys=inline) as source:
        assert (source.key_id, source.reason) == ("2", "")
        await source.renew()
        source.refresh()
    async with running([SealingSuite.MLKEM768_X25519], keys=inline) as source:
        assert source.key_id == "1"


async def test_a_key_without_security_in_the_configuration_prevents_the_start():
    source = Source(keys=[{"key_id": "a", "public_key": "A" * 43}])
    with pytest.raises(StartError, match="recipients: this is not a public key of suite X25519"):
        await source.start()


async def test_a_file_is_read_again_when_it_changes(owner, tmp_path):
    path = tmp_path / "key-set.jws"
    path.write_text(owner.key_set())
    old = owner.key_set()
    async with running(file=str(path), public_keys=owner.public_keys) as source:
        assert source.key_id == owner.keys[0].key_id
        new = owner.rotate()
        path.write_text(owner.key_set())
        await until(lambda: source.key_id == new.key_id)
        path.write_text(old)
        await until(lambda: source.reason)
        assert "publish the newest key set" in source.reason
        assert source.key_id == new.key_id
        assert source.results == {"accepted": 2, "rolled_back": 1}


async def test_a_file_that_cannot_be_used_prevents_the_start(owner, tmp_path):
    path = tmp_path / "key-set.jws"
    for text in (None, "nonsense", owner.key_set(signer=generate_key())):
        if text is not None:
            path.write_text(text)
        with pytest.raises(StartError, match=r"key-set\.jws"):
            await Source(file=str(path), public_keys=owner.public_keys).start()


async def test_a_url_is_fetched_regularly(owner):
    async with (
        Publisher(owner.key_set()) as publisher,
        running(url=publisher.url, public_keys=owner.public_keys, refresh_interval="20ms") as source,
    ):
        await until(lambda: source.version == 1)
        new = owner.rotate()
        publisher.text = owner.key_set()
        await until(lambda: source.key_id == new.key_id)


async def test_without_a_key_nothing_is_encrypted_and_the_start_does_not_wait(owner):
    async with Publisher("") as publisher:
        publisher.hangs = True
        async with running(url=publisher.url, public_keys=owner.public_keys, timeout="100ms") as source:
            with pytest.raises(RetryableError, match="nothing can be encrypted: no key is valid now") as caught:
                source.current()
            assert caught.value.reason == "no_recipient_key"
            await until(lambda: source.problem)
            assert source.results["unreachable"]
            publisher.hangs, publisher.text = False, owner.key_set()
            await until(lambda: not source.reason)
            assert source.key_id == owner.keys[0].key_id


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lambda owner: owner.key_set(signer=generate_key()), "unknown_signer"),
        (lambda owner: owner.key_set(version=1), "rolled_back"),
        (lambda owner: owner.key_set(version=3)[:-4] + "AAAA", "signature"),
        (lambda _: "<html>", "malformed"),
        (lambda _: "x" * 600_000, "malformed"),
    ],
)
async def test_a_bad_answer_changes_nothing(owner, text, reason):
    owner.version = 2
    async with (
        Publisher(owner.key_set()) as publisher,
        running(url=publisher.url, public_keys=owner.public_keys, refresh_interval="20ms") as source,
    ):
        await until(lambda: source.version == 2)
        known = source.key_id
        owner.rotate()
        with capture_logs() as logs:
            publisher.text = text(owner)
            await until(lambda: source.results[reason] > 2)
        assert [log["event"] for log in logs] == ["key set not refreshed; known keys stay in use"]
        assert (source.key_id, source.version) == (known, 2)
        assert source.reason


async def test_a_set_in_which_every_key_has_ended_stops_encryption(owner):
    async with (
        Publisher(owner.key_set()) as publisher,
        running(url=publisher.url, public_keys=owner.public_keys, refresh_interval="20ms") as source,
    ):
        await until(lambda: source.version == 1)
        owner.rotate()
        del owner.keys[-1]
        owner.keys[0] = owner.keys[0].__class__(
            owner.keys[0].key_id, owner.keys[0].suite, owner.keys[0].private, not_after=time.time() - 1
        )
        publisher.text = owner.key_set()
        await until(lambda: source.version == 2)
        with pytest.raises(RetryableError):
            source.current()


async def test_keys_end_on_time(owner):
    moment = time.time()
    owner.rotate(overlap=100)
    owner.keys = owner.keys[:1]
    async with Publisher(owner.key_set()) as publisher:
        source = Source(url=publisher.url, public_keys=owner.public_keys, now=lambda: moment)
        await source.start()
        moment = owner.keys[0].not_after - 1
        await until(lambda: source.version == 2)
        assert source.current()
        moment = owner.keys[0].not_after
        with pytest.raises(RetryableError):
            source.current()
        await source.stop()


async def test_refused_envelopes_fetch_the_set_at_once_but_not_often(owner, monkeypatch):
    async with (
        Publisher(owner.key_set()) as publisher,
        running(url=publisher.url, public_keys=owner.public_keys, refresh_interval="1h") as source,
    ):
        await until(lambda: source.version == 1)
        new = owner.rotate()
        publisher.text = owner.key_set()
        await asyncio.gather(*[source.renew() for _ in range(50)])
        assert (source.key_id, publisher.requests) == (new.key_id, 2)
        monkeypatch.setattr(recipient_source, "RENEW_EVERY", 60.0)
        await asyncio.gather(*[source.renew() for _ in range(50)])
        assert publisher.requests == 2
        source.refresh()
        await until(lambda: publisher.requests == 3)


async def test_a_renewal_from_a_url_that_hangs_ends(owner):
    async with (
        Publisher(owner.key_set()) as publisher,
        running(url=publisher.url, public_keys=owner.public_keys, refresh_interval="1h", timeout="100ms") as source,
    ):
        await until(lambda: source.version == 1)
        publisher.hangs = True
        async with asyncio.timeout(60):
            await source.renew()
        assert source.current()


async def test_the_state_file_survives_a_restart(owner, tmp_path):
    path = tmp_path / "state" / "key-set.jws"
    settings = {"public_keys": owner.public_keys, "state_file": str(path), "timeout": "100ms"}
    old = owner.key_set()
    owner.rotate()
    async with Publisher(owner.key_set()) as publisher:
        async with running(url=publisher.url, **settings):
            await until(path.exists)
        assert path.stat().st_mode & 0o777 == 0o600
        publisher.hangs = True
        async with running(url=publisher.url, **settings) as source:
            assert source.version == 2, "it does not wait for the URL"
        publisher.hangs, publisher.text = False, old
        async with running(url=publisher.url, **settings) as source:
            await until(lambda: source.results["rolled_back"])
            assert source.version == 2


async def test_a_damaged_state_file_is_replaced(owner, tmp_path):
    path = tmp_path / "key-set.jws"
    path.write_text("nonsense")
    async with (
        Publisher(owner.key_set()) as publisher,
        running(url=publisher.url, public_keys=owner.public_keys, state_file=str(path)) as source,
    ):
        await until(lambda: source.version == 1)
        await until(lambda: path.read_text() == publisher.text)


async def test_verification_keys_that_are_none_prevent_the_start():
    with pytest.raises(StartError, match="is not a public key"):
        await Source(url="https://127.0.0.1:9/x", public_keys=["A" * 42 + "!"]).start()
