import errno
import fcntl
import os
from pathlib import Path

import pytest

from otelwp_agent.journal import reserve
from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.journal.mark import Mark
from otelwp_agent.journal.records import HEADER_BYTES
from otelwp_agent.journal.recovery import read_directory
from otelwp_agent.journal.segment import RELEASED, WAITING, Segment
from tests.journal.conftest import KEYS
from tests.kit.segments import WrittenSegment, marker_of


@pytest.fixture
async def left(live, body, tmp_path):
    """Return the bytes of a segment that a killed agent left, some of its requests settled, and a file to put them."""
    life = live()
    for number in range(8):
        (request,) = await life.put(body(number))
        if number in {1, 4}:
            request.settle()
    await life.flush()
    life.kill()
    (path,) = life.journal.directory.glob("*.journal")
    copy = tmp_path / "copy" / path.name
    copy.parent.mkdir()
    return path.read_bytes(), copy


async def test_a_flipped_byte_anywhere_is_seen_and_costs_one_entry_at_most_and_no_sums(left):
    data, file = left
    whole, _, accepted = read(data, file)
    assert (len(whole), accepted) == (6, 16)
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        bodies, damage, now = read(bytes(flipped), file)
        assert len(whole - bodies) <= 1, f"byte {place} of {len(data)}"
        assert damage, f"byte {place} of {len(data)}"
        assert now == accepted, f"byte {place} of {len(data)}"


async def test_a_torn_write_is_no_damage_even_after_another_run(live, body):
    first = live()
    await first.put(body(0))
    first.kill()
    path = first.journal._entry_store.segments[-1].path
    path.write_bytes(path.read_bytes() + b"\xff" * 50)
    second = live()
    await second.put(body(1))
    second.kill()
    third = live()
    assert third.recovered.damage == []
    assert third.bodies() == [body(0), body(1)]


async def test_a_full_disk_has_room_for_saying_what_is_settled(live, body, monkeypatch):
    monkeypatch.setattr(reserve, "SIZE", 2_000)
    life = live()
    write, hold, room = Segment.write, os.posix_fallocate, 5_000

    def used():
        return sum(path.stat().st_size for path in life.journal.directory.iterdir())

    def on_a_small_disk(segment, parts, *, sync):
        if used() + sum(map(len, parts)) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(segment, parts, sync=sync)

    def held_on_a_small_disk(fd, offset, size):
        if used() + size > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        hold(fd, offset, size)

    monkeypatch.setattr(Segment, "write", on_a_small_disk)
    monkeypatch.setattr(os, "posix_fallocate", held_on_a_small_disk)
    taken = []
    while (request := (await life.put(body(len(taken))))[0]).error is None:
        taken.append(request)
    assert len(taken) > 2
    for request in taken:
        request.settle()
    await life.flush()
    life.journal._store._deleter.close()
    life.journal._failure.refuse_until = 0.0
    (request,) = await life.put(body(99))
    assert request.error is None
    assert audit_directory(life.journal.directory, KEYS).balances
    life.kill()
    assert live().bodies() == [body(99)]


async def test_a_file_that_was_only_just_made_costs_no_release(live, body):
    first = live()
    one, _ = await first.put(body(0), body(1))
    one.settle()
    await first.flush()
    first.kill()
    Segment.create(first.journal.directory, 2, 3).close()  # and then came the power cut
    second = live()
    assert second.sums() == (4, [2, 0, 0, 0], 2)
    assert second.bodies() == [body(1)]


def read(data, file):
    """Return the bodies that are not released, the damaged bytes, and the items accepted."""
    file.write_bytes(data)
    recovered = read_directory(file.parent, write=False, keys=KEYS)
    (segment,) = recovered.segments
    records = [segment.entry(index) for index, state in enumerate(segment.states) if state != RELEASED]
    bodies = {record.body() for record in records if record is not None and record.context in segment.contexts}
    segment.close()
    damage = recovered.torn + sum(damage.length for _, damage in recovered.damage)
    return bodies, damage, sum(row[3] for row in recovered.accounts.values())


TRACES, LOGS = ("traces", "otlp", "shop"), ("logs", "otlp", "shop")


def account(key, accepted, delivered=0, reasons=None):
    return (*key, accepted, [delivered, 0, 0, 0], reasons or {})


@pytest.fixture
def recover(tmp_path):
    """Return a function that reads the directory and closes what it opened at the end."""
    found = []

    def recover(**options):
        found.append(read_directory(tmp_path, **options, keys=KEYS))
        return found[-1]

    yield recover
    for each in found:
        each.close()


def states(segment):
    return list(segment.states)


def test_entries_releases_branches_and_sums_of_one_segment(tmp_path, recover):
    written = WrittenSegment(tmp_path).snapshot(1).context(3, ("traces", "logs"))
    written.entry(1, 2, 3).entry(2, 3, 3, b"longer body").entry(3, 4, 3)
    written.commit(
        range(1, 4),
        [account(TRACES, 9, 2), account(LOGS, 9)],
        released=[1],
        branches=[(2, 0, "jaeger"), (2, 1, ""), (1, 0, "jaeger")],
        exporters=[("otlp_http", 9, 2, {}, 7)],
    ).commit(range(4, 4), [account(TRACES, 9, 6)], branches=[(3, 0, ""), (2, 0, "zipkin")])
    found = recover()
    (segment,) = found.segments
    assert (segment.first, segment.end, states(segment)) == (1, 4, [RELEASED, WAITING, WAITING])
    assert (list(segment.items), list(segment.context_numbers)) == ([2, 3, 4], [3, 3, 3])
    assert list(segment.offsets) == written.offsets
    assert (segment.live, segment.kept, found.entries) == (2, 2, 2)
    assert segment.live_bytes == 2 * HEADER_BYTES + len(b"longer body") + len(b"body")
    assert segment.contexts[3].pipelines == ("traces", "logs")
    assert found.branches == {2: {(0, "jaeger"), (0, "zipkin"), (1, "")}, 3: {(0, "")}}
    assert found.live == {TRACES: 3, LOGS: 4}
    assert found.accounts == {TRACES: account(TRACES, 9, 6), LOGS: account(LOGS, 9)}
    assert found.exporters == [("otlp_http", 9, 2, {}, 7)], "the last commit that states them"
    assert (found.problems, found.damage, found.torn, found.mark, found.mark_damaged) == ([], [], 0, None, False)


def test_an_empty_directory_has_nothing(recover):
    found = recover()
    assert (found.segments, found.accounts, found.live, found.exporters, found.entries) == ([], {}, {}, (), 0)


def test_segments_are_read_in_the_order_of_their_numbers_and_other_files_are_not(tmp_path, recover):
    for number, first in ((10, 3), (2, 1), (11, 3)):
        WrittenSegment(tmp_path, number).snapshot(first).context().entry(first, 1)
    (tmp_path / "reserve").write_bytes(b"")
    assert [segment.number for segment in recover().segments] == [2, 10, 11]


def test_complete_entries_after_the_last_commit_are_added_to_the_sums(tmp_path, recover):
    written = WrittenSegment(tmp_path).snapshot(1).context(0, ("traces",)).context(1, ("traces", "logs"))
    written.entry(1, 5).commit(range(1, 2), [account(TRACES, 5, 1, {"malformed": 1})]).entry(2, 3, 1).entry(3, 4, 1)
    found = recover()
    assert found.accounts == {TRACES: account(TRACES, 12, 1, {"malformed": 1}), LOGS: account(LOGS, 7)}
    assert found.live == {TRACES: 12, LOGS: 7}
    assert (found.entries, found.problems) == (3, [])


def test_sums_include_all_that_came_before_them_even_if_its_own_commit_is_damaged(tmp_path, recover):
    written = WrittenSegment(tmp_path).snapshot(1).context(0, ("traces", "logs")).entry(1, 5).bytes(b"a damaged commit")
    found = written.entry(2, 2).commit(range(2, 3), [account(TRACES, 7)]) and recover()
    assert found.accounts == {TRACES: account(TRACES, 7), LOGS: account(LOGS, 5)}
    assert len(found.damage) == 1


def test_a_commit_whose_sums_do_not_match_its_entries_is_a_problem(tmp_path, recover):
    written = WrittenSegment(tmp_path).snapshot(1, [account(TRACES, 10, 4)]).context(0, ("traces", "")).entry(1, 5)
    written.commit(range(1, 2), [account(TRACES, 14, 4), account(("", "otlp", "shop"), 5)]).entry(2, 1).entry(3, 1)
    written.commit(range(2, 4), [account(TRACES, 16, 3), account(("", "otlp", "shop"), 8)])
    assert recover().problems == [
        f"{written.path.name}: a commit changes the sums for {name} from {before} settled to {after} items before it"
        for name, before, after in [
            ("traces / otlp / shop", "10 accepted and [4, 0, 0, 0]", "14 and [4, 0, 0, 0], with 5"),
            ("traces / otlp / shop", "14 accepted and [4, 0, 0, 0]", "16 and [3, 0, 0, 0], with 2"),
            ("- / otlp / shop", "5 accepted and [0, 0, 0, 0]", "8 and [0, 0, 0, 0], with 2"),
        ]
    ]


def test_sums_are_not_compared_after_damage(tmp_path, recover):
    written = WrittenSegment(tmp_path).snapshot(1).context().bytes(b"a damaged entry")
    written.entry(2, 1).commit(range(1, 3), [account(TRACES, 6)])
    found = recover()
    assert (found.problems, [damage.length for _, damage in found.damage]) == ([], [len(b"a damaged entry")])
    assert found.damage[0][0] == written.path


def test_a_segment_that_begins_with_other_sums_than_the_one_before_ends_with_is_a_problem(tmp_path, recover):
    WrittenSegment(tmp_path, 1).snapshot(1, [account(TRACES, 7, 7), account(LOGS, 5, 1), account(("", "otlp", ""), 9)])
    others = [
        account(TRACES, 7, 6),
        account(LOGS, 6, 1),
        account(("metrics", "otlp", ""), 3),
        account(("", "otlp", ""), 8),
    ]
    second = WrittenSegment(tmp_path, 2).snapshot(1, others)
    found = recover()
    assert found.problems == [
        f"{second.path.name} begins with other sums for {name} than the segment before it ends with: {sums}"
        for name, sums in [
            ("traces / otlp / shop", "7 accepted and [6, 0, 0, 0] settled, not 7 and [7, 0, 0, 0]"),
            ("logs / otlp / shop", "6 accepted and [1, 0, 0, 0] settled, not 5 and [1, 0, 0, 0]"),
            ("- / otlp / -", "8 accepted and [0, 0, 0, 0] settled, not 9 and [0, 0, 0, 0]"),
        ]
    ]
    assert sorted(found.accounts.values()) == sorted(others)


def test_sums_that_a_start_has_corrected_or_that_are_the_same_are_no_problem(tmp_path, recover):
    WrittenSegment(tmp_path, 1).snapshot(1, [account(TRACES, 7, 7)])
    WrittenSegment(tmp_path, 2).snapshot(1, [account(TRACES, 9, 7)], adjusted=True)
    WrittenSegment(tmp_path, 3).snapshot(1, [account(TRACES, 9, 7)])
    found = recover()
    assert (found.problems, found.accounts) == ([], {TRACES: account(TRACES, 9, 7)})


def test_numbers_that_are_missing_count_as_released(tmp_path, recover):
    written = WrittenSegment(tmp_path).snapshot(1).context().entry(1, 2).bytes(b"damage").entry(4, 3, body=b"later")
    written.commit(range(1, 5), [account(TRACES, 9)], released=[2, 3])
    (segment,) = (found := recover()).segments
    assert states(segment) == [WAITING, RELEASED, RELEASED, WAITING]
    assert (list(segment.items), list(segment.context_numbers)) == ([2, 0, 0, 3], [0, 0, 0, 0])
    assert list(segment.offsets) == [written.offsets[0], *[written.offsets[1]] * 3]
    assert list(segment.sizes) == [HEADER_BYTES + len(b"body"), 0, 0, HEADER_BYTES + len(b"later")]
    assert (segment.live, segment.live_bytes) == (2, 2 * HEADER_BYTES + len(b"body") + len(b"later"))
    assert found.live == {TRACES: 5}


def test_an_entry_whose_number_was_there_before_is_ignored(tmp_path, recover):
    WrittenSegment(tmp_path).snapshot(1).context().entry(1, 2).entry(2, 3).entry(1, 7)
    (segment,) = (found := recover()).segments
    assert (states(segment), list(segment.items)) == ([WAITING, WAITING], [2, 3])
    assert found.accounts == {TRACES: account(TRACES, 5)}


def test_an_entry_that_was_moved_counts_at_its_new_place_alone(tmp_path, recover):
    first = WrittenSegment(tmp_path, 1).snapshot(1).context().entry(1, 2).entry(2, 3, body=b"long body").entry(3, 4)
    first.commit(range(1, 4), [account(TRACES, 9)])
    second = WrittenSegment(tmp_path, 2).snapshot(4, [account(TRACES, 9)]).context().moved(4, 2, 3).entry(5, 1)
    second.commit(range(5, 6), [account(TRACES, 10)], released=[3])
    found = recover()
    assert [states(segment) for segment in found.segments] == [[WAITING, RELEASED, RELEASED], [WAITING, WAITING]]
    assert [segment.live for segment in found.segments] == [1, 2]
    assert [segment.live_bytes for segment in found.segments] == [HEADER_BYTES + 4, 2 * HEADER_BYTES + 8 + 4 + 4]
    assert (found.entries, found.live, found.accounts) == (3, {TRACES: 6}, {TRACES: account(TRACES, 10)})
    assert found.problems == []


def test_a_release_is_counted_once_and_only_for_an_entry_that_is_there(tmp_path, recover):
    written = WrittenSegment(tmp_path, 1).snapshot(5).context().entry(5, 2).entry(6, 3)
    written.commit(range(5, 7), [account(TRACES, 5)], released=[1, 4, 5, 5, 7, 9, 100])
    WrittenSegment(tmp_path, 2).snapshot(7, [account(TRACES, 5)]).context().entry(7, 1).entry(8, 1)
    first, second = (found := recover()).segments
    assert (states(first), states(second)) == ([RELEASED, WAITING], [RELEASED, WAITING])
    assert [(each.live, each.live_bytes) for each in (first, second)] == [(1, HEADER_BYTES + 4)] * 2
    assert found.live == {TRACES: 4}


def test_the_branches_of_a_released_entry_are_forgotten(tmp_path, recover):
    written = WrittenSegment(tmp_path).snapshot(1).context().entry(1, 2).entry(2, 2)
    written.commit(range(1, 3), [account(TRACES, 4)], branches=[(1, 0, "x"), (2, 0, "y")])
    written.commit(range(3, 3), released=[1])
    assert recover().branches == {2: {(0, "y")}}


def test_an_entry_whose_context_is_damaged_is_in_no_sum(tmp_path, recover):
    WrittenSegment(tmp_path).snapshot(1).context(0).entry(1, 2, context=7).entry(2, 3)
    found = recover()
    assert (found.entries, found.live, found.accounts) == (2, {TRACES: 3}, {TRACES: account(TRACES, 3)})


def test_without_a_snapshot_the_first_entry_tells_its_number_or_the_segment_before(tmp_path, recover):
    WrittenSegment(tmp_path, 1).snapshot(1).context().entry(1, 1).entry(2, 1)
    WrittenSegment(tmp_path, 2)
    WrittenSegment(tmp_path, 3).context().entry(9, 1).entry(10, 1)
    assert [(segment.first, segment.end) for segment in recover().segments] == [(1, 3), (3, 3), (9, 11)]


def test_a_snapshot_states_the_first_number_even_if_the_first_entries_are_missing(tmp_path, recover):
    WrittenSegment(tmp_path).snapshot(4).context().entry(6, 1)
    (segment,) = recover().segments
    assert (segment.first, states(segment)) == (4, [RELEASED, RELEASED, WAITING])


def test_an_unfinished_write_is_at_the_end_of_the_last_segment_alone(tmp_path, recover):
    first = WrittenSegment(tmp_path, 1).snapshot(1).bytes(b"torn long ago")
    WrittenSegment(tmp_path, 2).snapshot(1).bytes(b"damage").context().bytes(b"torn")
    found = recover()
    assert (found.torn, [(path.name[:10], damage.length) for path, damage in found.damage]) == (
        len(b"torn"),
        [("0000000001", len(b"torn long ago")), ("0000000002", len(b"damage"))],
    )
    assert found.damage[0][0] == first.path


@pytest.mark.parametrize(
    ("following", "live", "missing"),
    [(3, 5, 0), (2, 5, 0), (5, 5, 2), (9, 4, 4), (9, 0, 0)],
    ids=["all there", "a mark that is behind", "two are missing", "no more than were not settled", "all were settled"],
)
def test_the_mark_tells_how_many_entries_are_missing_at_the_end(tmp_path, recover, following, live, missing):
    WrittenSegment(tmp_path).snapshot(1).context().entry(1, 1).entry(2, 1)
    assert recover().missing == 0, "without a mark nobody knows"
    (tmp_path / "mark").write_bytes(Mark(marker_of(1), 1, following, live).encode())
    found = recover()
    assert (found.mark, found.missing) == (Mark(marker_of(1), 1, following, live), missing)


def test_the_mark_tells_what_is_missing_if_every_segment_is(tmp_path, recover):
    (tmp_path / "mark").write_bytes(Mark(marker_of(1), 1, 4, 9).encode())
    assert recover().missing == 3


def test_a_damaged_mark_is_reported(tmp_path, recover):
    (tmp_path / "mark").write_bytes(b"rubbish")
    found = recover()
    assert (found.mark, found.mark_damaged, found.missing) == (None, True, 0)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_file_stays_open_if_the_directory_cannot_be_read(tmp_path, monkeypatch):
    for number in (1, 2):
        WrittenSegment(tmp_path, number).snapshot(1)
    before, scan = open_files(), Segment.scan

    def broken(segment):
        if segment.number == 2:
            raise OSError(errno.EIO, "Input/output error")
        return scan(segment)

    monkeypatch.setattr(Segment, "scan", broken)
    with pytest.raises(OSError, match="Input/output error"):
        read_directory(tmp_path, keys=KEYS)
    assert open_files() == before


@pytest.mark.parametrize(
    ("options", "mode"), [({}, os.O_RDWR), ({"write": True}, os.O_RDWR), ({"write": False}, os.O_RDONLY)]
)
def test_a_segment_is_open_for_writing_unless_that_is_not_wanted(tmp_path, recover, options, mode):
    WrittenSegment(tmp_path).snapshot(1)
    (segment,) = recover(**options).segments
    assert fcntl.fcntl(segment.fd, fcntl.F_GETFL) & os.O_ACCMODE == mode


def test_closing_what_was_recovered_closes_every_segment(tmp_path):
    for number in (1, 2):
        WrittenSegment(tmp_path, number).snapshot(1)
    before = open_files()
    found = read_directory(tmp_path, keys=KEYS)
    assert open_files() == before + 2
    found.close()
    assert open_files() == before
