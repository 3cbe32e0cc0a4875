"""Entries that are whole and in the wrong place are found too."""

import pytest

from otelwp_agent.journal.records import RecordKind
from otelwp_agent.journal.segment import Segment
from otelwp_agent.journal.verify import verify_directory


@pytest.fixture
async def journal(live, body):
    life = live()
    for number in range(3):
        await life.put(body(number))
    life.kill()
    return life.journal.directory


def rewrite(directory, change):
    (path,) = directory.glob("*.journal")
    data, segment = path.read_bytes(), Segment.open(path)
    records = [(record.kind, data[record.offset : record.end]) for record in segment.scan()]
    segment.close()
    path.write_bytes(b"".join(part for _, part in change(records)))


def problems(directory):
    return "\n".join(verify_directory(directory).problems)


def swapped(records):
    first, second = [at for at, (kind, _) in enumerate(records) if kind is RecordKind.ENTRY][:2]
    records[first], records[second] = records[second], records[first]
    return records


async def test_a_sound_journal_has_no_problems(journal):
    found = verify_directory(journal)
    assert (found.problems, found.last, found.marked, found.waiting["traces"].entries) == ([], 3, 3, 3)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (swapped, "entry 2 follows where 1 should"),
        (
            lambda records: [each for each in records if each[0] is not RecordKind.SNAPSHOT],
            "begins with its only snapshot",
        ),
        (lambda records: [each for each in records if each[0] is not RecordKind.CONTEXT], "has no context before it"),
        (
            lambda records: [each for each in records if each[0] is not RecordKind.ENTRY],
            "names entry 1, which is missing",
        ),
    ],
    ids=["swapped", "no snapshot", "no context", "no entries"],
)
async def test_records_in_the_wrong_place(journal, change, wanted):
    rewrite(journal, change)
    assert wanted in problems(journal)


async def test_a_damaged_mark(journal):
    (journal / "mark").write_bytes(b"damaged")
    assert "mark: damaged" in problems(journal)
