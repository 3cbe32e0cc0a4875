import pytest

from otelwp_agent.journal import records
from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.journal.records import Commit, JournalDamage, JournalSnapshot, RecordKind
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.receipt import Outcome


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
        if len(segments(life.journal.directory)) == 3 and number % 4 == 2:
            break
    requests[2].claims[0].receipt.settle(Outcome.SAMPLED_OUT, 2)
    await life.flush()
    life.kill()
    directory = life.journal.directory
    assert len(segments(directory)) == 3
    return directory


def segments(directory):
    return sorted(directory.glob("*.journal"))


def rewrite(path, change):
    """Write a segment's records again, as `change` returns each (its parts), with right checksums."""
    segment = Segment.open(path)
    parts = []
    for record in segment.scan():
        assert not isinstance(record, JournalDamage)
        parts += change(segment.marker, record) if change(segment.marker, record) is not None else same(path, record)
    segment.close()
    path.write_bytes(b"".join(parts))


def same(path, record):
    return [path.read_bytes()[record.offset : record.end]]


def problems(directory):
    report = audit_directory(directory)
    assert report.balances is (not report.all_problems())
    return report.all_problems()


async def test_what_nobody_has_touched_balances(journal):
    report = audit_directory(journal)
    assert report.all_problems() == []
    assert report.source.startswith(f"journal {journal}, ")
    sums = {line.name: line for line in report.lines if line.kind == "pipeline"}
    assert sums["a"].sampled_out == 2
    assert sums["a"].in_flight == sums["b"].in_flight - 2 > 0
    assert sums["b"].dropped == sums["b"].reasons["malformed"] > 0


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


@pytest.mark.parametrize("which", [0, 1])
async def test_a_segment_that_was_deleted(journal, which):
    segments(journal)[which].unlink()
    assert problems(journal)


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


async def test_an_entry_that_was_put_in(journal):
    path = segments(journal)[-1]
    segment = Segment.open(path)
    last = max((record for record in segment.scan() if record.kind is RecordKind.ENTRY), key=lambda record: record.seq)
    extra = records.entry(segment.marker, last.seq + 1, last.signal, last.context, 7, last.body())
    empty = records.other(segment.marker, RecordKind.COMMIT, Commit(range(last.seq + 1, last.seq + 2)).encode())
    segment.close()
    with path.open("ab") as file:
        file.write(b"".join([*extra, *empty]))
    assert any("7 more items are settled or in flight" in problem for problem in problems(journal))


async def test_a_release_that_was_put_in(journal):
    path = segments(journal)[-1]
    segment = Segment.open(path)
    parts = records.other(segment.marker, RecordKind.COMMIT, Commit(range(0), released=[1]).encode())
    segment.close()
    with path.open("ab") as file:
        file.write(b"".join(parts))
    assert any("2 items are missing" in problem for problem in problems(journal))


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
    path = segments(journal)[-1]
    with path.open("ab") as file:
        file.write(b"torn")
    report = audit_directory(journal)
    assert report.balances
    assert "a last write of 4 bytes cut off (it was not acknowledged)" in report.source


async def test_it_changes_nothing(journal):
    before = {path: path.read_bytes() for path in segments(journal)}
    audit_directory(journal)
    assert {path: path.read_bytes() for path in segments(journal)} == before


def test_an_empty_directory_and_one_that_is_not_there(tmp_path):
    report = audit_directory(tmp_path)
    assert (report.lines, report.balances) == ([], True)
