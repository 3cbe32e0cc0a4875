from datetime import UTC, datetime

from otelwp_agent.control import last_used
from otelwp_agent.control.last_used import LastUsed

NOW = 1_800_000_000.0


def at(seconds):
    return datetime.fromtimestamp(NOW + seconds, UTC)


def test_a_key_is_noted_once_a_minute():
    used = LastUsed()
    for second in range(0, 130, 10):
        used.note("a", NOW + second)
    assert used.take(NOW + 130) == {"a": at(120)}
    assert used.take(NOW + 130) == {}
    used.note("a", NOW + 140)
    assert used.take(NOW + 140) == {}
    used.note("a", NOW + 180)
    assert used.take(NOW + 180) == {"a": at(180)}


def test_uses_that_were_not_stored_are_kept_unless_there_are_later_ones():
    used = LastUsed()
    used.note("a", NOW)
    used.note("b", NOW)
    taken = used.take(NOW)
    used.note("a", NOW + 60)
    used.put_back(taken)
    assert used.take(NOW + 60) == {"a": at(60), "b": at(0)}


def test_a_batch_is_bounded_and_old_uses_are_forgotten(monkeypatch):
    monkeypatch.setattr(last_used, "MAX_BATCH", 10)
    used = LastUsed()
    for number in range(25):
        used.note(str(number), NOW)
    assert [len(used.take(NOW + 100)) for _ in range(4)] == [10, 10, 5, 0]
    assert used._noted == {}
