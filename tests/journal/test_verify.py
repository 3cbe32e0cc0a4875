"""Entries that are whole and in the wrong place are found too."""

import os

import pytest

from otelwp_agent.journal import records as encoding
from otelwp_agent.journal.records import Commit, JournalSnapshot, RecordKind, RequestContext
from otelwp_agent.journal.segment import Segment
from otelwp_agent.journal.verify import verify_directory
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from tests.journal.conftest import KEYS, PLAIN, open_files


@pytest.fixture
async def journal(live, body):
    life = live()
    for number in range(3):
        await life.put(body(number))
    life.kill()
    return life.journal.directory


def rewrite(directory, change):
    (path,) = directory.glob("*.journal")
    data, segment = path.read_bytes(), Segment.open(path, keys=KEYS)
    records = [(record.kind, data[record.offset : record.end]) for record in segment.scan()]
    segment.close()
    path.write_bytes(b"".join(part for _, part in change(records)))


def problems(directory):
    return "\n".join(verify_directory(directory, KEYS).problems)


def swapped(records):
    first, second = [at for at, (kind, _) in enumerate(records) if kind is RecordKind.ENTRY][:2]
    records[first], records[second] = records[second], records[first]
    return records


async def test_a_sound_journal_has_no_problems(journal):
    found = verify_directory(journal, KEYS)
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
@PLAIN
async def test_records_in_the_wrong_place(journal, change, wanted):
    rewrite(journal, change)
    assert wanted in problems(journal)


@PLAIN
@pytest.mark.parametrize("missing", [{RecordKind.SNAPSHOT}, {RecordKind.SNAPSHOT, RecordKind.ENTRY}])
async def test_without_a_snapshot_the_number_of_the_first_entry_is_unknown(journal, missing):
    rewrite(journal, lambda records: [each for each in records if each[0] not in missing])
    (path,) = journal.glob("*.journal")
    assert [problem for problem in verify_directory(journal, KEYS).problems if "offset" in problem] == [
        f"{path.name}: offset 0: a segment begins with its only snapshot"
    ]


async def test_a_damaged_mark(journal):
    (journal / "mark").write_bytes(b"damaged")
    assert verify_directory(journal, KEYS).problems == [
        "mark: damaged; whether the end of the journal is missing is unknown"
    ]


@pytest.fixture
async def busy(live, body):
    """Return a journal with two segments. Requests are released, settled by one pipeline or branch, or unsettled."""
    life = live()
    released, half, *forked = await life.put(*[body(number) for number in range(4)], pipelines=("a", "b"))
    released.settle()
    half.claims[0].receipt.settle(Outcome.DELIVERED, 2)
    for request in forked:
        request.claims[1].receipt.fork(["jaeger", "zipkin"])[0].settle(Outcome.DELIVERED, 2)
    life.journal._store.current = None
    await life.put(body(4), items=3)
    return life


async def test_a_verification_has_all_figures(busy, encryption):
    busy.kill()
    directory = busy.journal.directory
    files = list(directory.glob("*.journal"))
    assert len(files) == 2
    assert verify_directory(directory, KEYS).to_json() == {
        "directory": str(directory),
        "in_use": False,
        "segments": 2,
        "bytes": sum(path.stat().st_size for path in files),
        "entries": 5,
        "last": 5,
        "marked": 5,
        "torn_bytes": 0,
        "keys": {KEYS.ids[0] if encryption else "": 2},
        "waiting": {
            "a": {"entries": 2, "items": 4, "done": {}},
            "b": {"entries": 3, "items": 6, "done": {"jaeger": 2}},
            "traces": {"entries": 1, "items": 3, "done": {}},
        },
        "problems": [],
        "sound": True,
    }


async def test_a_journal_in_use_is_verified_and_reported_as_in_use(busy):
    found = verify_directory(busy.journal.directory, KEYS)
    assert (found.in_use, found.problems, found.entries, found.directory) == (True, [], 5, str(busy.journal.directory))


async def test_a_torn_last_write_is_measured_and_is_no_problem(journal):
    (path,) = journal.glob("*.journal")
    with path.open("ab") as file:
        file.write(b"torn")
    found = verify_directory(journal, KEYS)
    assert (found.torn_bytes, found.problems) == (4, [])


def test_an_empty_directory_is_sound(tmp_path):
    found = verify_directory(tmp_path, KEYS)
    assert found.to_json() == {
        "directory": str(tmp_path),
        "in_use": False,
        "segments": 0,
        "bytes": 0,
        "entries": 0,
        "last": 0,
        "marked": None,
        "torn_bytes": 0,
        "keys": {},
        "waiting": {},
        "problems": [],
        "sound": True,
    }


async def test_verifying_leaves_no_file_open(journal):
    verify_directory(journal, KEYS)
    assert open_files(journal) == []


async def test_verifying_opens_no_file_for_writing(journal, opened):
    verify_directory(journal, KEYS)
    assert len(opened) == 3, "the directory, the mark and the segment"
    assert {flags & os.O_ACCMODE for flags in opened} == {os.O_RDONLY}


async def test_an_agent_can_start_on_a_journal_that_was_verified(live, body):
    life = live()
    await life.put(body(0))
    life.kill()
    verify_directory(life.journal.directory, KEYS)
    assert live().bodies() == [body(0)]


def write_segment(directory, number, first, *entries, contexts=("a",)):
    """Write a segment whose entries have these numbers, contexts and items; return its name."""
    segment = Segment.create(directory, number, first)
    marker = segment.marker
    parts = encoding.other(marker, RecordKind.SNAPSHOT, JournalSnapshot(first, [], 0.0, adjusted=True).encode())
    for place, pipeline in enumerate(contexts):
        context = RequestContext(Origin("otlp", "http"), (pipeline,))
        parts += encoding.other(marker, RecordKind.CONTEXT, context.encode(), place)
    for seq, context, items in entries:
        parts += encoding.entry(marker, seq, Signal.TRACES, context, items, b"body")
    segment.write(parts, sync=False)
    segment.close()
    return segment.path.name


def order_problems(directory):
    return [problem for problem in verify_directory(directory, KEYS).problems if ".journal" in problem]


def test_every_record_in_the_wrong_place_is_reported_with_its_offset(tmp_path):
    name = write_segment(tmp_path, 1, 1, (1, 0, 1), (3, 0, 1), (4, 5, 1), (9, 0, 1))
    segment = Segment.open(tmp_path / name, keys=KEYS)
    first, *_, three, four, nine = [record.offset for record in segment.scan()]
    end = segment.size
    commit = Commit(range(10, 12))
    segment.write(encoding.other(segment.marker, RecordKind.COMMIT, commit.encode()), sync=False)
    segment.close()
    assert first == 0
    assert order_problems(tmp_path) == [
        f"{name}: offset {three}: entry 3 follows where 2 should",
        f"{name}: offset {four}: entry 4 has no context before it",
        f"{name}: offset {nine}: entry 9 follows where 5 should",
        f"{name}: offset {end}: a commit names entry 11, which is missing",
    ]


def test_a_snapshot_that_is_not_at_the_beginning_is_reported(tmp_path):
    name = write_segment(tmp_path, 1, 1, (1, 0, 1))
    segment = Segment.open(tmp_path / name, keys=KEYS)
    end, snapshot = segment.size, JournalSnapshot(2, [], 0.0)
    segment.write(encoding.other(segment.marker, RecordKind.SNAPSHOT, snapshot.encode()), sync=False)
    segment.close()
    assert order_problems(tmp_path) == [f"{name}: offset {end}: a segment begins with its only snapshot"]


def test_a_record_out_of_order_is_found_behind_damage(tmp_path):
    name = write_segment(tmp_path, 1, 1, (1, 0, 1), (2, 0, 1), (4, 0, 1))
    segment = Segment.open(tmp_path / name, keys=KEYS)
    _, _, _, two, four = [record.offset for record in segment.scan()]
    os.pwrite(segment.fd, b"\xff", two + encoding.HEADER_BYTES)
    segment.close()
    assert order_problems(tmp_path) == [
        f"{name}: {four - two} bytes from offset {two} are damaged",
        f"{name}: offset {four}: entry 4 follows where 2 should",
    ]


def test_a_segment_that_begins_before_the_end_of_the_one_before_it_is_reported(tmp_path):
    one = write_segment(tmp_path, 1, 1, (1, 0, 1), (2, 0, 1))
    two = write_segment(tmp_path, 2, 2, (2, 0, 1))
    three = write_segment(tmp_path, 3, 3, (3, 0, 1))
    four = write_segment(tmp_path, 4, 3, (3, 0, 1))
    assert order_problems(tmp_path) == [
        f"{two} begins with entry 2, {one} ends with 2",
        f"{four} begins with entry 3, {three} ends with 3",
    ]


def test_entries_without_context_do_not_hide_those_behind_them(tmp_path):
    write_segment(tmp_path, 1, 1, (1, 0, 2), (2, 7, 4), (3, 1, 8), contexts=("a", "b"))
    waiting = verify_directory(tmp_path, KEYS).waiting
    assert {name: (each.entries, each.items) for name, each in waiting.items()} == {"a": (1, 2), "b": (1, 8)}
