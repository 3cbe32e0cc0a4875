import errno

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
