import os

import pytest

from otelwp_agent.journal import records
from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.journal.records import Commit, JournalDamage, JournalSnapshot, RecordKind, RequestContext
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.ledger_report import LedgerLine
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from tests.journal.conftest import KEYS, PLAIN, open_files


@pytest.fixture
async def journal(live, body):
    """Return the directory of an agent that was killed: three segments, some requests settled in each."""
    life = live()
    life.journal._store._segment_bytes = 1500
    requests = []
    for number in range(24):
        requests += await life.put(body(number), pipelines=("a", "b"), tenant="shop" if number % 3 else "")
        if number % 4 == 1:
            requests[-1].settle(*[(Outcome.DROPPED, "malformed"), (Outcome.DELIVERED,)][number % 8 == 1])
        if len(segments(life.journal.directory)) >= 3 and number % 4 == 2:
            break
    requests[2].claims[0].receipt.settle(Outcome.SAMPLED_OUT, 2)
    await life.flush()
    life.kill()
    directory = life.journal.directory
    assert len(segments(directory)) >= 3
    return directory


def segments(directory):
    return sorted(directory.glob("*.journal"))


def rewrite(path, change):
    """Write a segment's records again, as `change` returns each (its parts), with right checksums."""
    segment = Segment.open(path, keys=KEYS)
    parts = []
    for record in segment.scan():
        assert not isinstance(record, JournalDamage)
        parts += change(segment.marker, record) if change(segment.marker, record) is not None else same(path, record)
    segment.close()
    path.write_bytes(b"".join(parts))


def same(path, record):
    return [path.read_bytes()[record.offset : record.end]]


def problems(directory):
    report = audit_directory(directory, KEYS)
    assert report.balances is (not report.all_problems())
    return report.all_problems()


async def test_what_nobody_has_touched_balances(journal):
    report = audit_directory(journal, KEYS)
    assert report.all_problems() == []
    assert report.source.startswith(f"journal {journal}, ")
    sums = {line.name: line for line in report.lines if line.kind == "pipeline"}
    assert sums["a"].sampled_out == 2
    assert sums["a"].in_flight == sums["b"].in_flight - 2 > 0
    assert sums["b"].dropped == sums["b"].reasons["malformed"] > 0


@PLAIN
@pytest.mark.parametrize("which", ["accepted", "delivered", "reasons"])
async def test_a_sum_in_the_last_commit_that_was_changed_with_a_right_checksum(journal, which):
    def change(marker, record):
        if record.kind is not RecordKind.COMMIT:
            return None
        commit = Commit.decode(record.payload)
        rows = []
        for pipeline, receiver, tenant, accepted, settled, reasons in commit.accounts:
            if which == "accepted":
                rows.append((pipeline, receiver, tenant, accepted + 2, settled, reasons))
            elif which == "delivered":
                rows.append((pipeline, receiver, tenant, accepted, [settled[0] + 1, *settled[1:]], reasons))
            else:
                rows.append((pipeline, receiver, tenant, accepted, settled, {"malformed": 1000}))
        text = Commit(commit.entries, rows, list(commit.released), commit.branches, commit.exporters).encode()
        return records.other(marker, RecordKind.COMMIT, text)

    rewrite(segments(journal)[-1], change)
    assert problems(journal)


@PLAIN
@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_sum_in_the_middle_that_was_changed_with_a_right_checksum(journal, which):
    changed = []

    def change(marker, record):
        if record.kind is not RecordKind.COMMIT or (changed and record.offset != changed[0]):
            return None
        changed[:] = [record.offset]
        commit = Commit.decode(record.payload)
        rows = [(*row[:3], row[3] + 2, *row[4:]) for row in commit.accounts]
        text = Commit(commit.entries, rows, list(commit.released), commit.branches, commit.exporters).encode()
        return records.other(marker, RecordKind.COMMIT, text)

    rewrite(segments(journal)[which], change)
    assert any("a commit changes the sums" in problem for problem in problems(journal))


@PLAIN
@pytest.mark.parametrize("which", [0, 1])
async def test_a_segment_that_was_deleted(journal, which):
    segments(journal)[which].unlink()
    assert problems(journal)


@PLAIN
@pytest.mark.parametrize("which", [0, 1, 2])
async def test_an_entry_that_was_taken_out(journal, which):
    taken = []

    def change(_marker, record):
        if record.kind is RecordKind.ENTRY and not taken and record.seq % 4 == 3:  # not one of those that are settled
            taken.append(record.seq)
            return []
        return [] if taken and record.kind is RecordKind.ENTRY and record.seq == taken[0] else None

    rewrite(segments(journal)[which], change)
    assert taken
    assert any("items are missing" in problem for problem in problems(journal))


@PLAIN
async def test_an_entry_that_was_put_in(journal):
    path = segments(journal)[-1]
    segment = Segment.open(path, keys=KEYS)
    last = max((record for record in segment.scan() if record.kind is RecordKind.ENTRY), key=lambda record: record.seq)
    extra = records.entry(segment.marker, last.seq + 1, last.signal, last.context, 7, last.body())
    empty = records.other(segment.marker, RecordKind.COMMIT, Commit(range(last.seq + 1, last.seq + 2)).encode())
    segment.close()
    with path.open("ab") as file:
        file.write(b"".join([*extra, *empty]))
    assert any("7 more items are settled or in flight" in problem for problem in problems(journal))


@PLAIN
async def test_a_release_that_was_put_in(journal):
    path = segments(journal)[-1]
    segment = Segment.open(path, keys=KEYS)
    parts = records.other(segment.marker, RecordKind.COMMIT, Commit(range(0), released=[1]).encode())
    segment.close()
    with path.open("ab") as file:
        file.write(b"".join(parts))
    assert any("2 items are missing" in problem for problem in problems(journal))


@PLAIN
async def test_sums_at_the_beginning_of_a_segment_that_were_changed(journal):
    def change(marker, record):
        if record.kind is not RecordKind.SNAPSHOT:
            return None
        snapshot = JournalSnapshot.decode(record.payload)
        rows = [(*row[:3], row[3] + 2, *row[4:]) for row in snapshot.accounts]
        return records.other(marker, RecordKind.SNAPSHOT, JournalSnapshot(snapshot.first, rows, snapshot.time).encode())

    path = segments(journal)[1]
    rewrite(path, change)
    assert [problem for problem in problems(journal) if problem.startswith(f"{path.name} begins with other sums for a")]


async def test_a_flipped_byte_is_told_with_its_place(journal):
    path = segments(journal)[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert any(problem.startswith(f"{path.name}: ") and "are damaged" in problem for problem in problems(journal))


async def test_a_torn_last_write_is_told_and_no_problem(journal):
    whole = audit_directory(journal, KEYS).source
    path = segments(journal)[-1]
    with path.open("ab") as file:
        file.write(b"torn")
    report = audit_directory(journal, KEYS)
    assert report.balances
    assert report.source == f"{whole}, a last write of 4 bytes cut off (it was not acknowledged)"


async def test_it_changes_nothing(journal):
    before = {path: path.read_bytes() for path in segments(journal)}
    audit_directory(journal, KEYS)
    assert {path: path.read_bytes() for path in segments(journal)} == before


def test_an_empty_directory_and_one_that_is_not_there(tmp_path):
    report = audit_directory(tmp_path, KEYS)
    assert (report.lines, report.balances) == ([], True)


async def test_each_pipeline_receiver_tenant_and_exporter_has_a_line_with_all_figures(live, body):
    life = live()
    life.journal.remember_exporters(lambda: [("jaeger", 9, 4, {"malformed": 2, "retries_exhausted": 1}, 2)])
    one, two, three, four, _ = await life.put(*[body(number) for number in range(5)], pipelines=("a", "b"), tenant="x")
    (five,) = await life.put(body(5), pipelines=("a",), items=3)
    one.settle()
    two.settle(Outcome.SAMPLED_OUT)
    three.settle(Outcome.FILTERED)
    four.settle(Outcome.DROPPED, "malformed")
    five.settle(Outcome.DROPPED, "retries_exhausted")
    await life.journal.close()
    directory = life.journal.directory
    report = audit_directory(directory, KEYS)

    def line(kind, name, share, reasons, accepted):
        figures = {"delivered": share, "sampled_out": share, "filtered": share, "in_flight": share}
        return LedgerLine(kind, name, accepted=accepted, dropped=sum(reasons.values()), reasons=reasons, **figures)

    assert report.lines == [
        line("pipeline", "a", 2, {"malformed": 2, "retries_exhausted": 3}, 13),
        line("pipeline", "b", 2, {"malformed": 2}, 10),
        line("receiver", "otlp", 4, {"malformed": 4, "retries_exhausted": 3}, 23),
        LedgerLine("tenant", "", accepted=3, dropped=3, reasons={"retries_exhausted": 3}),
        line("tenant", "x", 4, {"malformed": 4}, 20),
        LedgerLine(
            "exporter", "jaeger", accepted=9, delivered=4, dropped=3, in_flight=2,
            reasons={"malformed": 2, "retries_exhausted": 1},
        ),
    ]  # fmt: skip
    assert report.source == f"journal {directory}, 1 requests not settled"
    assert report.problems == []


def test_entries_whose_ledger_is_missing_are_reported_as_in_flight(tmp_path):
    segment = Segment.create(tmp_path, 1, 1)
    context = RequestContext(Origin("otlp", "http", "shop"), ("a",))
    segment.write(
        [
            *records.other(segment.marker, RecordKind.SNAPSHOT, JournalSnapshot(1, [], 0.0).encode()),
            *records.other(segment.marker, RecordKind.CONTEXT, context.encode()),
            *records.entry(segment.marker, 1, Signal.TRACES, 0, 7, b"body"),
            *records.other(segment.marker, RecordKind.COMMIT, Commit(range(1, 2)).encode()),
        ],
        sync=False,
    )
    segment.close()
    report = audit_directory(tmp_path, KEYS)
    assert report.lines == [
        LedgerLine("pipeline", "a", in_flight=7),
        LedgerLine("receiver", "otlp", in_flight=7),
        LedgerLine("tenant", "shop", in_flight=7),
    ]


async def test_damage_is_reported_with_file_offset_and_length(live, body):
    life = live()
    await life.put(body(0), body(1))
    life.kill()
    (segment,) = life.journal._entry_store.segments
    begin, end = segment.offsets
    with segment.path.open("r+b") as file:
        file.seek(begin + records.HEADER_BYTES)
        file.write(b"\xff")
    assert f"{segment.path.name}: {end - begin} bytes from offset {begin} are damaged" in problems(
        life.journal.directory
    )


async def test_a_missing_end_is_reported_with_the_number_of_lost_requests(live, body):
    life = live()
    await life.put(body(0))
    size = life.journal.stored
    await life.put(body(1), body(2))
    life.kill()
    (path,) = segments(life.journal.directory)
    with path.open("r+b") as file:
        file.truncate(size)
    assert problems(life.journal.directory) == [
        "the end of the journal is missing: up to 2 acknowledged requests are lost"
    ]


async def test_the_audit_opens_no_file_for_writing_and_closes_all(journal, opened):
    audit_directory(journal, KEYS)
    assert len(opened) == 1 + len(segments(journal)), "the mark and the segments"
    assert {flags & os.O_ACCMODE for flags in opened} == {os.O_RDONLY}
    assert open_files(journal) == []
