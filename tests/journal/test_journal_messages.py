"""The ids of messages are written with their requests, and survive a kill, segments that are deleted, and a restart."""

import time

from otelwp_agent.model.message import Message
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.sealing.replay_cache import MessageState
from tests.journal.conftest import PLAIN, Request

LIMITS = (600.0, 1000, 10_000)


def a_message(number):
    return Message("otlp", "acme", number.to_bytes(16, "big"), int(time.time() * 1000))


async def put(life, body, *messages):
    """Write a request for each message, as the receiver and the intake do."""
    cache, requests = life.journal.messages.cache("otlp", *LIMITS), []
    for message in messages:
        assert cache.begin("acme", message, time.time()) is MessageState.NEW
        request = Request(life, body, 2, ("traces",), "acme")
        request.batch.message = message
        life.journal.append(request)
        requests.append(request)
    await life._quiet()
    for request in requests:
        assert request.entry is not None
        life.journal.messages.accept(request.batch.message)
    return requests


def states(life, *messages):
    cache = life.journal.messages.cache("otlp", *LIMITS)
    return [cache.begin("acme", message, time.time()) for message in messages]


async def test_after_a_kill_messages_are_known_whether_settled_or_not(live, body):
    first = live()
    one, two, three = a_message(1), a_message(2), a_message(3)
    (settled, _) = await put(first, body(1), one, two)
    settled.settle(Outcome.DELIVERED)
    await first.flush()
    first.kill()
    second = live()
    assert states(second, one, two, three) == [MessageState.ACCEPTED, MessageState.ACCEPTED, MessageState.NEW]
    assert second.journal.entries == 1


async def test_a_new_segment_knows_the_messages_of_deleted_ones(live, body):
    first = live(max_size="4MiB")
    messages = [a_message(number) for number in range(40)]
    for number, message in enumerate(messages):
        (request,) = await put(first, body(number) * 2000, message)
        request.settle(Outcome.DELIVERED)
        await first.flush()
    first.journal.start()
    await first.flush()
    assert first.journal._store._number > 2, "the test needs several segments"
    first.kill()
    second = live(max_size="4MiB")
    assert set(states(second, *messages)) == {MessageState.ACCEPTED}


async def test_a_message_whose_request_was_not_written_is_new(live, body, monkeypatch):
    first = live()
    cache = first.journal.messages.cache("otlp", *LIMITS)
    message = a_message(1)
    cache.begin("acme", message, time.time())
    request = Request(first, body(1), 2, ("traces",), "acme")
    request.batch.message = message
    monkeypatch.setattr("otelwp_agent.journal.segment.Segment.write", _fails)
    first.journal.append(request)
    await first._quiet()
    assert request.error is not None
    monkeypatch.undo()
    first.kill()
    assert states(live(), message) == [MessageState.NEW]


def _fails(*_, **__):
    raise OSError(28, "No space left on device")


@PLAIN
async def test_without_messages_nothing_is_written_about_them(live, body, tmp_path):
    life = live()
    await life.put(body(1))
    written = b"".join(path.read_bytes() for path in (tmp_path / "journal").iterdir() if path.is_file())
    assert b'"accounts"' in written
    assert b'"messages"' not in written
