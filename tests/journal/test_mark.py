"""A tail that is lost is noticed; a crash, a failed write and a power failure are no false alarm."""

import os
import zlib

import pytest
from structlog.testing import capture_logs

from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.journal.mark import NAME, SIZE, Mark, MarkFile, read_mark
from tests.journal.conftest import KEYS


@pytest.fixture
def log():
    with capture_logs() as lines:
        yield lines


def events(log):
    return [line for line in log if line["log_level"] in {"error", "warning"}]


def test_a_mark_is_read_as_it_was_written(tmp_path):
    file = MarkFile(tmp_path)
    mark = Mark(b"12345678", 3, 2**40, 17)
    for each in (Mark(b"........", 1, 1, 1), mark):
        file.write(each)
    file.close()
    assert read_mark(tmp_path) == (mark, False)
    assert ((tmp_path / NAME).stat().st_size, (tmp_path / NAME).stat().st_mode & 0o777) == (SIZE, 0o600)


@pytest.mark.parametrize(("data", "damaged"), [(b"", False), (b"short", True), (bytes(SIZE), True)])
def test_a_mark_that_is_damaged_is_no_mark(tmp_path, data, damaged):
    assert read_mark(tmp_path) == (None, False)
    (tmp_path / NAME).write_bytes(data)
    assert read_mark(tmp_path) == (None, damaged), "an empty one is what a power failure leaves"
    (tmp_path / NAME).write_bytes(Mark(b"12345678", 1, 2, 3).encode()[:-1] + b"x")
    assert read_mark(tmp_path) == (None, True)


async def test_a_lost_tail_is_an_error_with_the_number_of_entries(live, body, log):
    first = live()
    await first.put(body(0))
    size = first.journal._entry_store.segments[-1].size
    for number in range(1, 4):
        await first.put(body(number))
    first.kill()
    os.truncate(first.journal._entry_store.segments[-1].path, size)
    assert "up to 3 acknowledged requests are lost" in audit_directory(first.journal.directory, KEYS).all_problems()[0]
    second = live()
    assert second.bodies() == [body(0)]
    (line,) = events(log)
    assert (line["event"], line["log_level"], line["entries"]) == (
        "journal has lost its end; acknowledged requests are missing",
        "error",
        3,
    )
    assert second.registry.value("otelwp_journal_lost_entries") == 3
    second.kill()
    live()
    assert len(events(log)) == 1, "once"


async def test_segments_that_were_removed_between_two_runs_are_an_error(live, body, log):
    first = live()
    settled, *_ = await first.put(*[body(number) for number in range(5)])
    settled.settle()
    await first.journal.close()
    for path in first.journal.directory.glob("*.journal"):
        path.unlink()
    assert live().recovered.missing == 4
    assert events(log)[0]["entries"] == 4


async def test_what_was_settled_is_not_missing(live, body, log):
    first = live()
    for request in await first.put(body(0), body(1)):
        request.settle()
    await first.journal.close()
    for path in first.journal.directory.glob("*.journal"):
        path.unlink()
    assert live().recovered.missing == 0
    assert events(log) == []


async def test_a_crash_between_any_two_steps_is_no_alarm(live, body, monkeypatch, log):
    """The mark follows the entries: an agent that is killed before it writes the mark leaves an older one."""
    first = live()
    await first.put(body(0))
    first.journal._store.mark.write = lambda _mark: None
    await first.put(body(1), body(2))
    first.kill()
    second = live()
    assert (second.bodies(), second.recovered.missing) == ([body(0), body(1), body(2)], 0)
    assert events(log) == []


async def test_a_failed_write_is_no_alarm_later(live, body, monkeypatch, log):
    first = live()
    await first.put(body(0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        await first.put(body(1))
    first.kill()
    log.clear()
    assert live().bodies() == [body(0)]
    assert events(log) == []


async def test_a_mark_that_cannot_be_written_is_reported_once_and_costs_nothing_else(live, body, log):
    life = live()
    (life.journal.directory / NAME).mkdir()
    for number in range(3):
        (request,) = await life.put(body(number))
        assert request.entry is not None
    assert [line["event"] for line in events(log)] == ["journal mark not written; a lost tail would not be noticed"]
    (life.journal.directory / NAME).rmdir()
    await life.put(body(3))
    life.kill()
    assert read_mark(life.journal.directory)[0].next == 5


async def test_a_damaged_mark_is_a_warning(live, body, log):
    first = live()
    await first.put(body(0))
    first.kill()
    (first.journal.directory / NAME).write_bytes(b"damaged")
    assert live().bodies() == [body(0)]
    assert [line["event"] for line in events(log)] == [
        "journal mark damaged; whether the end of the journal is missing is unknown"
    ]


def test_a_mark_that_cannot_be_written_says_why_until_it_can(tmp_path):
    directory = tmp_path / "journal"
    file = MarkFile(directory)
    assert file.failure == ""
    file.write(Mark(b"12345678", 1, 2, 3))
    assert file.failure == "No such file or directory"
    directory.mkdir()
    file.write(Mark(b"12345678", 1, 2, 3))
    assert (file.failure, read_mark(directory)) == ("", (Mark(b"12345678", 1, 2, 3), False))
    file.close()
    file.close()


def test_a_mark_is_written_into_the_open_file_until_it_is_closed(tmp_path):
    file = MarkFile(tmp_path)
    file.write(Mark(b"12345678", 1, 2, 3))
    (tmp_path / NAME).unlink()
    file.write(Mark(b"12345678", 1, 3, 3))
    assert read_mark(tmp_path) == (None, False), "the file that it has open is no longer in the directory"
    file.close()
    file.write(Mark(b"12345678", 1, 4, 3))
    assert read_mark(tmp_path) == (Mark(b"12345678", 1, 4, 3), False)
    file.close()


def test_the_file_has_the_format_that_is_documented():
    data = Mark(b"12345678", 2, 3, 4).encode()
    body = b"OTELWPM1" + b"12345678" + b"".join(number.to_bytes(8, "little") for number in (2, 3, 4))
    assert data == body + zlib.crc32(body).to_bytes(4, "little")
    assert Mark.decode(data + b"more") == Mark(b"12345678", 2, 3, 4)
    other = b"OTELWPM2" + body[8:]
    assert Mark.decode(other + zlib.crc32(other).to_bytes(4, "little")) is None
    assert Mark.decode(data[: SIZE - 1]) is None


def test_a_failure_without_a_number_is_reported_by_its_text(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("the disk is gone")

    file = MarkFile(tmp_path)
    monkeypatch.setattr("otelwp_agent.storage.files.write_parts", broken)
    file.write(Mark(b"12345678", 1, 2, 3))
    assert file.failure == "the disk is gone"
