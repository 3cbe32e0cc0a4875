"""What the segment store reports about files that disappeared: log, health and errors."""

import errno
import os
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from otelwp_agent.journal import segments
from tests.kit.graphs import until

ADVICE = "find out who removes files there: only the agent may change this directory while it runs"


@pytest.fixture
def log():
    with capture_logs() as lines:
        yield lines


def remove_segments(directory):
    for path in directory.glob("*.journal"):
        path.unlink()


def move_directory(directory):
    directory.rename(directory.with_name("moved"))


def replace_directory(directory):
    move_directory(directory)
    directory.mkdir()


def test_entries_that_cannot_be_copied_are_reported_with_file_and_number(live, log):
    store = live().journal._store
    segment = store.newest()
    segment.live = 3
    store.copied(segment, 0)
    assert log == [], "it has not disappeared"
    store._displaced.append(segment)
    store.copied(segment, 1)
    assert (store.must_copy, log) == (True, [])
    store.copied(segment, 0)
    assert not store.must_copy
    assert log == [
        {
            "event": "journal entries cannot be copied; they exist in memory only",
            "log_level": "error",
            "file": str(segment.path),
            "entries": 3,
            "advice": "let the agent deliver them before it stops",
        }
    ]


class Clock:
    """Replaces the module `time`."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        self.wall = 0.0
        monkeypatch.setattr(segments, "time", SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.wall))


async def test_a_loss_is_logged_with_all_figures_and_reported_for_a_minute(live, body, log, monkeypatch):
    clock = Clock(monkeypatch)
    life = live()
    await life.put(body(0), body(1))
    life.journal._store.current = None
    await life.put(body(2))
    log.clear()
    remove_segments(life.journal.directory)
    assert life.journal._store.find_displaced()
    assert log == [
        {
            "event": "journal segments were removed or replaced; entries are copied to a new one",
            "log_level": "error",
            "directory": str(life.journal.directory),
            "segments": 2,
            "entries": 3,
            "advice": ADVICE,
        }
    ]
    await life.flush()
    await until(lambda: not life.journal._store.must_copy)
    message = f"segments or the directory were removed or replaced: {ADVICE}"
    clock.now = 1059.9
    assert life.journal._store.problem == message
    clock.now = 1060.0
    assert life.journal._store.problem == ""
    life.journal._store._displaced.append(life.journal._store.current)
    assert life.journal._store.problem == message
    life.journal._store._displaced.clear()


async def test_a_directory_that_was_replaced_is_logged_and_reported_until_it_is_used(live, body, log, monkeypatch):
    clock = Clock(monkeypatch)
    life = live()
    await life.put(body(0))
    log.clear()
    replace_directory(life.journal.directory)
    assert life.journal._store.find_displaced()
    assert not life.journal._store.find_displaced(), "nothing more has disappeared"
    assert log == [
        {
            "event": "journal directory was removed or replaced; entries are copied to a new one",
            "log_level": "error",
            "directory": str(life.journal.directory),
            "segments": 1,
            "entries": 1,
            "advice": ADVICE,
        }
    ]
    life.journal._store._displaced.clear()
    clock.now = 2000.0
    assert life.journal._store.problem
    life.journal._store.newest()
    assert life.journal._store.problem == ""


def test_the_error_about_another_journal_has_its_number(live):
    store = live().journal._store
    (store.directory / "0000000001-0123456789abcdef.journal").write_bytes(b"")
    with pytest.raises(FileExistsError) as raised:
        store._check_foreign()
    assert raised.value.errno == errno.EEXIST


@pytest.mark.parametrize("age", [-1.0, 0.99, 1.0, 5.0])
async def test_a_directory_is_listed_again_if_its_last_change_is_recent(live, body, monkeypatch, age):
    clock = Clock(monkeypatch)
    life = live()
    await life.put(body(0))
    store = life.journal._store
    clock.wall = life.journal.directory.stat().st_mtime + age
    assert not store.find_displaced()
    listed = []
    monkeypatch.setattr(store, "_not_in_place", lambda: listed.append(1) or [])
    assert not store.find_displaced()
    assert bool(listed) is (age < 1)


async def test_a_failed_check_of_the_directory_is_logged_with_its_error(live, body, monkeypatch, log):
    life = live()

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", denied)
        assert life.journal._store.find_displaced() is False
    assert log == [
        {
            "event": "journal directory cannot be checked",
            "log_level": "error",
            "directory": str(life.journal.directory),
            "error": "Permission denied",
        }
    ]
    assert life.journal._store.find_displaced() is False
