import errno
import os
import stat

import pytest

from otelwp_agent.dead_letters import file as module
from otelwp_agent.dead_letters.file import LetterFile, LockedError, new_id, read_bodies, read_letters
from otelwp_agent.dead_letters.records import Letter
from otelwp_agent.errors import AgentError
from otelwp_agent.model.signal import Signal


def letter(identifier, size=4, **other):
    return Letter(identifier, 1.0, "sink", Signal.TRACES, 1, size, other.pop("reason", "malformed"), "no", **other)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dead-letters"


@pytest.fixture
def file(path):
    file = LetterFile(path, 2**20)
    file.open()
    yield file
    file.close()


def ids(path):
    return [one.id for one in read_letters(path).letters]


def test_letters_and_bodies_come_back_in_order(file, path):
    for identifier in ("1", "2", "3"):
        assert file.append(letter(identifier), identifier.encode() * 4)
    assert ids(path) == ["1", "2", "3"]
    assert list(read_bodies(path, {"3", "1", "9"})) == [(letter("1"), b"1111"), (letter("3"), b"3333")]


def test_only_its_owner_reads_it(file, path):
    file.append(letter("1"), b"body")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.rewrite()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_removed_letters_are_gone_and_their_bytes_after_a_rewrite(file, path):
    for identifier in ("1", "2"):
        file.append(letter(identifier), b"body")
    file.remove([letter("1")])
    assert ids(path) == ["2"]
    assert b"body" * 1 in path.read_bytes()
    before = file.size
    assert file.rewrite() == []
    assert file.size < before
    assert (file.size, file.dead_bytes) == (path.stat().st_size, 0)
    assert ids(path) == ["2"]
    file.append(letter("3"), b"body")
    assert ids(path) == ["2", "3"]


def test_dead_bytes_are_what_a_rewrite_gives_back(file, path):
    for identifier in ("1", "2", "3"):
        file.append(letter(identifier), b"body")
    file.remove([letter("2")])
    dead, size = file.dead_bytes, file.size
    assert read_letters(path).dead_bytes == dead
    file.rewrite()
    assert file.size == size - dead


def test_a_letter_written_again_stands_last_and_once(file, path):
    file.append(letter("1"), b"body")
    file.append(letter("2"), b"body")
    file.append(letter("1", reason="too_large"), b"body")
    assert [(one.id, one.reason) for one in read_letters(path).letters] == [("2", "malformed"), ("1", "too_large")]
    assert [found.reason for found, _ in read_bodies(path, {"1"})] == ["too_large"]


def test_rewriting_drops_what_it_is_told_to(file, path):
    for identifier in ("1", "2", "3"):
        file.append(letter(identifier), b"body")
    assert file.rewrite(lambda one: one.id != "2") == [letter("1"), letter("3")]
    assert ids(path) == ["2"]
    assert list(path.parent.iterdir()) == [path]


def test_a_full_file_takes_nothing_until_there_is_room(path):
    file = LetterFile(path, 1000)
    file.open()
    assert file.append(letter("1", 600), bytes(600))
    assert not file.append(letter("2", 600), bytes(600))
    assert ids(path) == ["1"]
    file.remove([letter("1", 600)])
    assert file.append(letter("3", 600), bytes(600))  # the file was rewritten for it
    assert ids(path) == ["3"]
    assert path.stat().st_size <= 1000
    file.close()


def test_one_process_at_a_time_writes(file, path):
    with pytest.raises(LockedError, match="another process writes this file"):
        LetterFile(path, 100).open()
    file.rewrite()
    with pytest.raises(LockedError):
        LetterFile(path, 100).open()
    file.close()
    other = LetterFile(path, 100)
    other.open()
    other.close()


def test_who_waited_for_the_lock_gets_the_file_that_stands_there(path, monkeypatch):
    first = LetterFile(path, 2**20)
    first.open()
    first.append(letter("1"), b"body")
    lock, times = module.fcntl.flock, []

    def rewritten_meanwhile(fd, operation):
        if not times:
            times.append(1)
            first.rewrite()
            first.close()
        return lock(fd, operation)

    monkeypatch.setattr(module.fcntl, "flock", rewritten_meanwhile)
    second = LetterFile(path, 2**20)
    second.open()
    second.append(letter("2"), b"body")
    second.close()
    assert ids(path) == ["1", "2"]


def test_damage_is_counted_and_stepped_over(file, path):
    for identifier in ("1", "2", "3"):
        file.append(letter(identifier), b"body" + identifier.encode())
    file.close()
    data = bytearray(path.read_bytes())
    data[data.index(b"body2")] ^= 1
    path.write_bytes(data[:-3])
    reading = file.open()
    assert [one.id for one in reading.letters] == ["1"]
    assert (reading.damaged, reading.damaged_bytes > 0) == (1, True)  # two neighbours are one place
    file.append(letter("4"), b"body")
    assert ids(path) == ["1", "4"]
    file.rewrite()
    assert read_letters(path).damaged == 0
    assert ids(path) == ["1", "4"]


def test_a_write_that_fails_half_way_leaves_the_file_readable(file, path, monkeypatch):
    file.append(letter("1"), b"body")
    write = os.write

    def disk_full(fd, data):
        if len(data) > 20:
            return write(fd, data[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "write", lambda fd, data: disk_full(fd, data[:40]))
        with pytest.raises(OSError, match="No space"):
            file.append(letter("2"), b"body")
    assert file.size == path.stat().st_size
    file.append(letter("3"), b"body")
    assert ids(path) == ["1", "3"]


def test_a_rewrite_that_fails_keeps_the_old_file(file, path, monkeypatch):
    file.append(letter("1"), b"body")

    def fails(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", fails)
        with pytest.raises(OSError, match="No space"):
            file.rewrite(lambda _: True)
    assert list(path.parent.iterdir()) == [path]
    file.append(letter("2"), b"body")
    assert ids(path) == ["1", "2"]


def test_a_first_write_that_was_torn_begins_anew(path):
    path.write_bytes(b"otelwpDL" + b"half")
    file = LetterFile(path, 2**20)
    assert file.open().letters == []
    file.append(letter("1"), b"body")
    assert ids(path) == ["1"]
    file.close()


def test_another_kind_of_file_is_left_alone(path):
    path.write_bytes(b"precious " * 20)
    with pytest.raises(AgentError, match="not a dead-letter file"):
        LetterFile(path, 100).open()
    with pytest.raises(AgentError, match="not a dead-letter file"):
        read_letters(path)
    assert path.read_bytes() == b"precious " * 20


def test_an_empty_file_holds_nothing(path):
    path.touch()
    assert read_letters(path).letters == []
    assert list(read_bodies(path, {"1"})) == []


def test_a_file_that_is_not_there(path):
    with pytest.raises(FileNotFoundError):
        read_letters(path)


def test_ids_grow_even_when_the_clock_goes_back():
    first = new_id(1000.0, "")
    assert first < new_id(1000.0, first) < new_id(1000.001, first)
    assert new_id(1.0, first) > first
    assert len(first) == 14
