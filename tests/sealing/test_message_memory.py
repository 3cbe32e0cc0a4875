import pytest

from otelwp_agent.model.message import Message
from otelwp_agent.sealing.errors import SealedError
from otelwp_agent.sealing.message_memory import MAX_AGE, MessageMemory, rows_of
from otelwp_agent.sealing.replay_cache import MessageState

NOW = 1_700_000_000.0
A, B = b"a" * 16, b"b" * 16


def a_message(id_=A, tenant="acme", at=NOW):
    return Message("otlp", tenant, id_, int(at * 1000))


def accept(memory, *messages, **limits):
    cache = memory.cache("otlp", *(limits.get("limits") or (600.0, 100, 1000)))
    for message in messages:
        assert cache.begin(message.tenant, message, NOW) is MessageState.NEW
        memory.accept(message)
    return cache


def test_a_new_process_knows_what_the_journal_has():
    memory = MessageMemory()
    accept(memory, a_message(), a_message(B, "globex"))
    memory.cache("otlp", 600.0, 100, 1000).begin("acme", a_message(B), NOW)  # pending: nothing of it is on disk
    after = MessageMemory(lambda: NOW)
    after.restore(memory.rows())
    cache = after.cache("otlp", 600.0, 100, 1000)
    assert cache.begin("acme", a_message(), NOW) is MessageState.ACCEPTED
    assert cache.begin("globex", a_message(B, "globex"), NOW) is MessageState.ACCEPTED
    assert cache.begin("acme", a_message(B), NOW) is MessageState.NEW
    assert after.rows() == memory.rows()


def test_restored_before_and_after_the_receiver_is_built():
    rows = rows_of([("otlp", "acme", A, int(NOW * 1000))])
    after = MessageMemory(lambda: NOW)
    cache = after.cache("otlp", 600.0, 100, 1000)
    after.restore(rows)
    after.restore(rows)
    assert cache.begin("acme", a_message(), NOW) is MessageState.ACCEPTED
    assert len(cache) == 1


def test_a_reload_keeps_the_messages_also_with_other_limits():
    memory = MessageMemory()
    first = accept(memory, a_message())
    assert memory.cache("otlp", 600.0, 100, 1000) is first
    changed = memory.cache("otlp", 900.0, 100, 1000)
    assert changed is not first
    assert changed.begin("acme", a_message(), NOW) is MessageState.ACCEPTED


def test_the_smaller_limit_forgets_the_oldest_and_refuses_what_is_as_old():
    memory = MessageMemory()
    accept(memory, *[a_message(bytes([number]) * 16, at=NOW + number) for number in range(1, 4)])
    small = memory.cache("otlp", 600.0, 2, 1000)
    assert len(small) == 2
    assert small.begin("acme", a_message(bytes([3]) * 16, at=NOW + 3), NOW) is MessageState.ACCEPTED
    with pytest.raises(SealedError) as caught:
        small.begin("acme", a_message(bytes([1]) * 16, at=NOW + 1), NOW)
    assert caught.value.reason == "stale"


def test_messages_of_removed_receivers_are_kept_for_a_week():
    rows = rows_of([("gone", "acme", A, int(NOW * 1000))])
    memory = MessageMemory(lambda: NOW + MAX_AGE - 1)
    memory.restore(rows)
    assert memory.rows() == rows
    assert memory
    later = MessageMemory(lambda: NOW + MAX_AGE + 1)
    later.restore(rows)
    assert later.rows() == []


def test_what_was_released_is_not_accepted():
    memory = MessageMemory()
    memory.accept(a_message())  # of a receiver that is not there any more
    assert memory.rows() == []
    assert not memory
