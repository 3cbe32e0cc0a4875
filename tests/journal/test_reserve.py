import errno
import os

import structlog

from otelwp_agent.journal.reserve import SIZE, Reserve


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
