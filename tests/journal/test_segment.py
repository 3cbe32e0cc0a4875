import errno
import os

import pytest

from otelwp_agent.journal import records
from otelwp_agent.journal.segment import DisplacedError, Segment, is_segment
from otelwp_agent.model.signal import Signal
from tests.journal.conftest import KEYS, open_files


def test_what_is_written_is_there_for_who_opens_it_next(tmp_path):
    segment = Segment.create(tmp_path, 3, 10)
    parts = records.entry(segment.marker, 10, Signal.TRACES, 0, 1, b"x" * 5000) * 700
    assert segment.write(parts, sync=True) == sum(map(len, parts))
    segment.close()
    again = Segment.open(segment.path, keys=KEYS)
    assert (again.number, again.marker, again.size) == (3, segment.marker, sum(map(len, parts)))
    assert len(list(again.scan())) == 700
    again.delete()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_segment_is_left_alone(tmp_path):
    other = tmp_path / "notes.journal"
    other.write_text("mine")
    assert Segment.open(other, keys=KEYS) is None


def test_a_write_that_fails_leaves_the_end_as_it_was(tmp_path, monkeypatch):
    segment = Segment.create(tmp_path, 1, 1)
    parts = records.entry(segment.marker, 1, Signal.TRACES, 0, 1, b"first")
    segment.size = segment.write(parts, sync=False)
    real, calls = os.pwritev, []

    def full(fd, pieces, offset):
        calls.append(offset)
        if len(calls) == 1:
            return real(fd, [b"".join(pieces)[:10]], offset)  # a disk that has room for a part of it
        raise AssertionError

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    monkeypatch.setattr(os, "pwrite", no_room)
    with pytest.raises(OSError, match="No space"):
        segment.write(parts, sync=True)
    assert segment.path.stat().st_size == segment.size == sum(map(len, parts))


@pytest.fixture
def segment(tmp_path):
    segment = Segment.create(tmp_path, 3, 10)
    yield segment
    segment.close()


def written(segment, *bodies):
    """Write entries with these bodies, as the shelf remembers them."""
    for body in bodies:
        segment.offsets.append(segment.size)
        parts = records.entry(segment.marker, segment.end, Signal.TRACES, 0, 1, body)
        segment.states.append(0)
        segment.size += segment.write(parts, sync=False)
    return segment


def test_a_new_segment_is_an_empty_file_named_for_its_number_and_marker(segment, tmp_path):
    assert segment.path == tmp_path / f"0000000003-{segment.marker.hex()}.journal"
    assert (segment.number, segment.first, segment.end, segment.size) == (3, 10, 10, 0)
    assert (segment.kept, segment.live, segment.live_bytes, segment.waiting, segment.displaced) == (0, 0, 0, 0, False)
    assert (list(segment.offsets), list(segment.context_numbers), list(segment.items)) == ([], [], [])
    assert (segment.contexts, bytes(segment.states)) == ({}, b"")
    assert (segment.path.stat().st_size, segment.path.stat().st_mode & 0o777) == (0, 0o600)
    assert len(segment.marker) == records.MARKER_BYTES
    assert is_segment(segment.path.name)
    assert not is_segment("x" + segment.path.name)
    assert not is_segment(segment.path.name + "x")


def test_numbers_can_be_as_large_as_the_format_allows(segment):
    segment.offsets.append(2**32 - 1)
    segment.items.append(2**32 - 1)
    segment.context_numbers.append(2**16 - 1)
    segment.sizes.append(2**32 - 1)
    assert (segment.offsets[0], segment.items[0], segment.context_numbers[0]) == (2**32 - 1, 2**32 - 1, 2**16 - 1)
    assert segment.sizes[0] == 2**32 - 1


def test_no_two_segments_have_the_same_marker(tmp_path):
    segments = [Segment.create(tmp_path, number, 1) for number in (1, 2)]
    assert segments[0].marker != segments[1].marker
    for each in segments:
        each.close()


def test_each_entry_is_read_by_its_index(segment):
    written(segment, b"first", b"the second", b"third")
    assert [segment.entry(index).body() for index in range(3)] == [b"first", b"the second", b"third"]
    assert [segment.entry(index).seq for index in range(3)] == [10, 11, 12]
    assert [segment.entry(index).offset for index in range(3)] == list(segment.offsets)


def test_an_entry_that_is_damaged_or_another_one_is_not_read(segment):
    written(segment, b"first", b"second")
    os.pwrite(segment.fd, b"x", segment.offsets[1] - 1)
    assert segment.entry(0) is None
    segment.first = 11
    assert segment.entry(1) is None, "its number says that it is another one"


def test_bytes_are_cut_off_the_end(segment):
    written(segment, b"first")
    size = segment.size
    written(segment, b"second")
    segment.cut(segment.size - size)
    assert segment.size == segment.path.stat().st_size == size


@pytest.mark.parametrize("how", ["removed", "replaced", "directory removed", "directory replaced by a file"])
def test_a_segment_that_is_not_at_its_path_takes_no_writes(tmp_path, how):
    directory = tmp_path / "journal"
    directory.mkdir()
    segment = Segment.create(directory, 1, 1)
    assert segment.is_in_place
    written(segment, b"first")
    size = segment.size
    if how == "removed":
        segment.path.unlink()
    elif how == "replaced":
        data = segment.path.read_bytes()
        segment.path.rename(tmp_path / "moved")
        segment.path.write_bytes(data)
    else:
        directory.rename(tmp_path / "elsewhere")
        if how.endswith("file"):
            directory.write_text("")
    assert not segment.is_in_place
    parts = records.entry(segment.marker, 2, Signal.TRACES, 0, 1, b"second")
    with pytest.raises(DisplacedError, match="was removed or replaced while the agent runs") as raised:
        segment.write(parts, sync=False)
    assert (raised.value.errno, str(segment.path) in str(raised.value)) == (errno.ESTALE, True)
    assert os.fstat(segment.fd).st_size == segment.size == size
    segment.close()


def test_a_segment_may_be_opened_without_writing_to_it(segment):
    written(segment, b"first")
    again = Segment.open(segment.path, write=False, keys=KEYS)
    assert (again.size, len(list(again.scan()))) == (segment.size, 1)
    assert again.is_in_place
    with pytest.raises(OSError, match="Bad file descriptor"):
        again.write([b"x"], sync=False)
    again.close()
    again.close()


def test_only_a_write_that_is_to_wait_for_the_disk_does(segment, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    segment.write([b"x"], sync=False)
    assert synced == []
    segment.write([b"x"], sync=True)
    assert synced == [segment.fd]


def test_waiting_entries_are_counted_over_contexts_and_states(segment):
    segment.waiting_for.update({(0, 0): 2, (1, 3): 3})
    assert segment.waiting == 5


def broken(*_):
    raise OSError(errno.EIO, "Input/output error")


def test_the_file_of_another_segment_is_not_overwritten(segment, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "urandom", lambda _: segment.marker)
    with pytest.raises(FileExistsError):
        Segment.create(tmp_path, 3, 10)


@pytest.mark.parametrize("removable", [True, False])
def test_a_new_file_that_cannot_be_examined_is_removed_and_closed(tmp_path, monkeypatch, removable):
    def read_only(_):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", broken)
        if not removable:
            patch.setattr(os, "unlink", read_only)
        with pytest.raises(OSError, match="Input/output error"):
            Segment.create(tmp_path, 1, 1)
    assert (len(list(tmp_path.iterdir())), open_files(tmp_path)) == (0 if removable else 1, [])


def test_an_existing_file_that_cannot_be_examined_is_closed(segment, tmp_path, monkeypatch):
    before = open_files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", broken)
        with pytest.raises(OSError, match="Input/output error"):
            Segment.open(segment.path, keys=KEYS)
    assert open_files(tmp_path) == before


def test_an_opened_segment_can_be_written_to_and_has_no_entries_before_it_is_read(segment):
    written(segment, b"first")
    again = Segment.open(segment.path, keys=KEYS)
    assert (again.path, again.first, again.end, again.waiting) == (segment.path, 0, 0, 0)
    assert again.write([b"more"], sync=False) == 4
    assert segment.path.stat().st_size == segment.size + 4
    again.close()
    assert again.fd == -1


def test_a_segment_on_another_device_with_the_same_number_is_another_file(segment, monkeypatch):
    found = segment.path.stat()
    elsewhere = os.stat_result((*found[:2], found.st_dev + 1, *found[3:]))
    assert elsewhere.st_ino == found.st_ino
    monkeypatch.setattr(os, "stat", lambda _: elsewhere)
    assert not segment.is_in_place


def test_a_path_that_cannot_be_checked_is_an_error(segment, monkeypatch):
    def denied(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(PermissionError):
        segment.write([b"x"], sync=False)


def test_the_error_of_a_write_is_raised_also_if_the_file_cannot_be_truncated(segment, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    monkeypatch.setattr(os, "ftruncate", broken)
    with pytest.raises(OSError, match="No space left"):
        segment.write([b"x"], sync=False)


def test_a_write_returns_the_number_of_its_own_bytes(segment):
    segment.size = segment.write([b"first"], sync=False)
    assert segment.write([b"the", b"second"], sync=False) == 9
    assert segment.path.read_bytes() == b"firstthesecond"


def test_bytes_that_were_written_but_cannot_be_synced_are_removed(segment, monkeypatch):
    segment.size = segment.write([b"first"], sync=False)
    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        segment.write([b"second"], sync=True)
    assert segment.path.read_bytes() == b"first"


def test_only_the_bytes_of_an_entry_are_read(segment, monkeypatch):
    written(segment, b"first", b"the second")
    real, reads = os.pread, []

    def spy(fd, size, offset):
        reads.append((size, offset))
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", spy)
    segment.entry(0)
    segment.entry(1)
    begin = records.HEADER_BYTES + 5
    assert reads == [(begin, 0), (records.HEADER_BYTES + 10, begin)]


def test_a_segment_that_has_disappeared_can_be_deleted(segment):
    segment.path.unlink()
    segment.delete()
    assert segment.fd == -1
