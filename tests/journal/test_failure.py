import errno
from types import SimpleNamespace

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.errors import Overloaded
from otelwp_agent.journal.failure import RETRY_INTERVAL, Failure
from otelwp_agent.journal.reserve import Reserve


@pytest.fixture
def log():
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def failure(tmp_path, log):
    log = structlog.get_logger()
    return Failure(Reserve(tmp_path, log), log)


def test_it_is_logged_once_and_until_it_is_over(failure, log):
    for _ in range(3):
        error = failure.set(OSError(errno.EIO, "Input/output error"))
    assert (error.retry_after, error.reason) == (RETRY_INTERVAL, "journal_unwritable")
    assert [line["log_level"] for line in log] == ["error"]
    failure.clear()
    assert (failure.message, log[-1]["event"]) == ("", "the journal can be written again")


def test_a_full_disk_has_space_again_when_the_reserve_can_be_held(failure, tmp_path):
    failure._reserve.hold()
    failure.set(OSError(errno.ENOSPC, "No space left on device"))
    assert not (tmp_path / "reserve").exists(), "its blocks are for the next write"
    with pytest.raises(Overloaded, match="No space left"):
        failure.check()
    failure.refuse_until = 0.0
    failure.check()
    assert (tmp_path / "reserve").exists()


def test_a_full_disk_that_takes_small_writes_is_still_full(failure, monkeypatch):
    failure.set(OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(Reserve, "hold", lambda _: None)
    failure.clear()
    assert failure.message == "No space left on device"


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("otelwp_agent.journal.failure.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_without_a_failure_nothing_is_refused_or_logged(failure, log):
    failure.check()
    failure.clear()
    assert (failure.message, failure.refuse_until, log) == ("", 0.0, [])


def test_senders_and_operators_read_why_and_what_to_do(failure, log):
    error = failure.set(OSError(errno.EIO, "Input/output error"))
    assert str(error) == str(failure.refusal()) == "the journal cannot be written: Input/output error"
    assert log == [
        {
            "event": "the journal cannot be written; senders are refused",
            "error": "Input/output error",
            "advice": "free space or repair the disk; writing is tried again every 1 s",
            "log_level": "error",
        }
    ]


def test_an_error_without_a_number_is_reported_by_its_text(failure):
    assert str(failure.set(OSError("the segment is gone"))) == "the journal cannot be written: the segment is gone"


def test_senders_are_refused_for_a_second_after_each_failed_write(failure, clock):
    failure.set(OSError(errno.EIO, "Input/output error"))
    clock[0] += 0.9 * RETRY_INTERVAL
    with pytest.raises(Overloaded, match="Input/output error"):
        failure.check()
    failure.set(OSError(errno.EIO, "Input/output error"))
    clock[0] += 0.9 * RETRY_INTERVAL
    with pytest.raises(Overloaded):
        failure.check()
    clock[0] += 0.1 * RETRY_INTERVAL
    failure.check()
    assert failure.message, "it is over when a write has succeeded"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_only_a_full_disk_takes_the_reserve(failure, tmp_path, number):
    failure._reserve.hold()
    failure.set(OSError(errno.EIO, "Input/output error"))
    assert (tmp_path / "reserve").exists()
    failure.set(OSError(number, "full"))
    assert not (tmp_path / "reserve").exists()


def test_a_full_disk_is_asked_for_space_once_a_second(failure, clock, monkeypatch):
    asked = []
    monkeypatch.setattr(Reserve, "hold", lambda _: asked.append(clock[0]))
    failure.set(OSError(errno.ENOSPC, "full"))
    for _ in range(30):
        clock[0] += 0.1 * RETRY_INTERVAL
        with pytest.raises(Overloaded):
            failure.check()
    assert 2 <= len(asked) <= 3
    assert asked[0] >= 1000.0 + RETRY_INTERVAL


def test_a_disk_that_was_full_and_then_fails_otherwise_needs_no_space(failure, clock, monkeypatch):
    monkeypatch.setattr(Reserve, "hold", lambda _: None)
    failure.set(OSError(errno.ENOSPC, "full"))
    failure.set(OSError(errno.EIO, "Input/output error"))
    failure.clear()
    assert failure.message == ""
    failure.set(OSError(errno.EIO, "Input/output error"))
    clock[0] += RETRY_INTERVAL
    failure.check()
