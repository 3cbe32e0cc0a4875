from otelwp_agent.codecs import recurring
from otelwp_agent.codecs.recurring import Recurring, Remembered, Seen


def test_remembered_makes_once_and_forgets_when_full():
    made = []
    memory = Remembered(lambda key: made.append(key) or key * 2, 2)
    assert [memory[key] for key in (1, 1, 2, 1)] == [2, 2, 4, 2]
    assert made == [1, 2]
    assert memory[3] == 6
    assert len(memory) == 1


def test_recurring_remembers_short_data_that_came_twice():
    made = []
    memory = Recurring(lambda data: made.append(data) or len(data))
    long = b"x" * (recurring.MAX_SIZE + 1)
    assert [memory[data] for data in (b"a", b"a", b"a", b"b", long, long, long)] == [1, 1, 1, 1, *[len(long)] * 3]
    assert made == [b"a", b"a", b"b", long, long, long]


def test_memories_are_bounded(monkeypatch):
    monkeypatch.setattr(recurring, "MAX_ENTRIES", 4)
    memory, seen = Recurring(len), Seen()
    for number in range(50):
        for _ in range(2):
            assert memory[b"%d" % number] == len(str(number))
        assert not seen.again(b"%d" % number)
    assert len(memory) <= 4
    assert len(seen._hashes) <= 4


def test_seen_tells_what_came_before():
    seen = Seen()
    assert [seen.again(b"a"), seen.again(b"b"), seen.again(b"a")] == [False, False, True]
