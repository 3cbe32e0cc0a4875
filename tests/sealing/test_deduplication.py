import asyncio

import pytest

from otelwp_agent.config.blocks import Deduplication
from otelwp_agent.errors import MalformedError, Overloaded, RetryableError
from otelwp_agent.sealing.deduplication import MAX_KEY, Deduplicator
from otelwp_agent.sealing.message_memory import MessageMemory
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import FakeClock

NOW = 1_700_000_000.0


class Receiver:
    def __init__(self, **settings):
        self.now, self.registry, self.ran = FakeClock(NOW), Registry(), 0
        self.messages = Deduplicator(Deduplication(**settings), MessageMemory(), "otlp", self.registry, self.now)

    def post(self, key="k", tenant="acme", answer="new"):
        def run():
            self.ran += 1
            if isinstance(answer, Exception):
                raise answer
            return answer

        return self.messages.process(self.messages.keyed(tenant, key), run, "again")


def test_the_second_request_is_acknowledged_and_not_processed():
    receiver = Receiver()
    assert [receiver.post(), receiver.post(), receiver.post()] == ["new", "again", "again"]
    assert receiver.post("other") == receiver.post(tenant="globex") == "new"
    assert receiver.ran == 3
    assert receiver.registry.value("otelwp_receiver_duplicate_requests", receiver="otlp") == 2


def test_what_was_refused_may_be_sent_again():
    receiver = Receiver()
    for _ in range(2):
        with pytest.raises(Overloaded):
            receiver.post(answer=Overloaded("full"))
    assert receiver.post() == "new"
    assert receiver.ran == 3


def test_a_message_is_remembered_for_its_time():
    receiver = Receiver(remember="10s")
    receiver.post()
    receiver.now.now += 9.9
    assert receiver.post() == "again"
    receiver.now.now += 11
    assert receiver.post() == "new"


async def test_while_it_is_processed_the_sender_must_wait():
    receiver, loop = Receiver(), asyncio.get_running_loop()
    first = loop.create_future()
    assert receiver.post(answer=first) is first
    with pytest.raises(RetryableError) as caught:
        receiver.post()
    assert (caught.value.reason, caught.value.retry_after) == ("in_progress", 1.0)
    first.set_result("on disk")
    await asyncio.sleep(0)
    assert receiver.post() == "again"
    assert receiver.ran == 1


async def test_if_it_fails_later_it_may_be_sent_again():
    receiver, loop = Receiver(), asyncio.get_running_loop()
    first = loop.create_future()
    receiver.post(answer=first)
    first.set_exception(RetryableError("the disk is full"))
    await asyncio.sleep(0)
    assert receiver.post() == "new"
    first.exception()


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY + 1)])
def test_invalid_keys(key):
    with pytest.raises(MalformedError, match="Idempotency-Key"):
        Receiver().post(key)


def test_any_text_may_be_a_key():
    assert Receiver().post("\udcff\u00e9") == "new"
