import errno
import os

import pytest

from otelwp_agent.journal import records
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.signal import Signal


def test_what_is_written_is_there_for_who_opens_it_next(tmp_path):
    segment = Segment.create(tmp_path, 3, 10)
    parts = records.entry(segment.marker, 10, Signal.TRACES, 0, 1, b"x" * 5000) * 700
    assert segment.write(parts, sync=True) == sum(map(len, parts))
    segment.close()
    again = Segment.open(segment.path)
    assert (again.number, again.marker, again.size) == (3, segment.marker, sum(map(len, parts)))
    assert len(list(again.scan())) == 700
    again.delete()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_segment_is_left_alone(tmp_path):
    other = tmp_path / "notes.journal"
    other.write_text("mine")
    assert Segment.open(other) is None


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
