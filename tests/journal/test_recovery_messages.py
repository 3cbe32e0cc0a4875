"""Which messages a journal's directory remembers."""

import pytest

from otelwp_agent.journal.recovery import read_directory
from tests.kit.segments import WrittenSegment

OLD, FIRST, SECOND = (["otlp", "acme", f"{number:048x}"] for number in range(3))


@pytest.fixture
def messages(tmp_path):
    """Return a function that reads the messages of the directory."""

    def messages():
        recovered = read_directory(tmp_path)
        recovered.close()
        return recovered.messages

    return messages


def test_messages_are_those_of_the_last_snapshot_and_of_the_entries_behind_it(tmp_path, messages):
    WrittenSegment(tmp_path, 1).snapshot(1, messages=[SECOND]).context().message(FIRST).entry(1, 1)
    WrittenSegment(tmp_path, 2).snapshot(2, messages=[OLD]).context().message(FIRST).entry(2, 1).entry(3, 1)
    assert messages() == [OLD, FIRST]


def test_without_a_snapshot_the_message_of_the_first_entry_is_remembered(tmp_path, messages):
    WrittenSegment(tmp_path).context().message(FIRST).entry(5, 1).message(SECOND).entry(6, 1)
    assert messages() == [FIRST, SECOND]
    (segment,) = (found := read_directory(tmp_path)).segments
    assert (segment.first, segment.end) == (5, 7)
    found.close()


def test_a_message_whose_entry_is_missing_or_damaged_is_not_remembered(tmp_path, messages):
    written = WrittenSegment(tmp_path).snapshot(1).context().message(FIRST).bytes(b"a damaged entry").entry(2, 1)
    written.message(SECOND)
    assert messages() == []
