import errno
import os
from pathlib import Path

import structlog
from structlog.testing import capture_logs

from otelwp_agent.journal.reserve import SIZE, Reserve
from otelwp_agent.storage import files


def test_it_has_its_blocks_until_they_are_needed(tmp_path):
    reserve = Reserve(tmp_path, structlog.get_logger())
    reserve.hold()
    reserve.hold()
    assert reserve.held
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= SIZE
    reserve.give_up()
    reserve.give_up()
    assert (reserve.held, list(tmp_path.iterdir())) == (False, [])


def test_where_there_is_no_room_there_is_no_reserve(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    reserve = Reserve(tmp_path, structlog.get_logger())
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        reserve.hold()
    assert (reserve.held, list(tmp_path.iterdir())) == (False, [])
    reserve.hold()
    assert reserve.held
    Reserve(tmp_path / "missing", structlog.get_logger()).hold()


def test_a_nearly_full_disk_is_logged_once_until_there_is_space_again(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with capture_logs() as logs:
        reserve = Reserve(tmp_path, structlog.get_logger())
        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(os, "posix_fallocate", full)
                reserve.hold()
                reserve.hold()
            reserve.hold()
            assert reserve.held
            reserve.give_up()
    assert (
        logs
        == [
            {
                "event": "journal reserve cannot be allocated; the disk is nearly full",
                "log_level": "warning",
                "file": str(tmp_path / "reserve"),
                "bytes": SIZE,
                "error": "No space left on device",
            }
        ]
        * 2
    )


def test_it_can_be_held_again_and_no_descriptor_stays_open(tmp_path):
    reserve = Reserve(tmp_path, structlog.get_logger())
    assert not reserve.held
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        reserve.hold()
        assert (tmp_path / "reserve").stat().st_size == SIZE
        reserve.give_up()
        assert not reserve.held
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_reserve_that_cannot_be_removed_is_no_longer_held(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    reserve = Reserve(tmp_path, structlog.get_logger())
    assert reserve.held is False
    reserve.hold()
    monkeypatch.setattr(files, "remove", denied)
    reserve.give_up()
    assert reserve.held is False
