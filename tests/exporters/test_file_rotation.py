"""Rotation of the files that the exporter writes."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.exporters import file as file_exporter
from otelwp_agent.exporters.file import RotatingFile, Rotation

NOON = 1_795_187_045.123  # 2026-11-20T15:04:05.123Z


def rotating(path, wall=lambda: NOON, limit=10, **settings):
    file = RotatingFile(path, Rotation(**settings), wall)
    file._limit = limit
    file.open(truncate=False)
    return file


def test_a_full_file_is_renamed_with_the_time(tmp_path):
    file = rotating(tmp_path / "data.json")
    assert file.write(b"123456") == 0
    assert file.write(b"7890") == 0
    assert file.write(b"x") == 1
    file.close()
    assert (tmp_path / "data-2026-11-20T15-04-05.123.json").read_bytes() == b"1234567890"
    assert (tmp_path / "data.json").read_bytes() == b"x"


def test_names_never_collide(tmp_path):
    file = rotating(tmp_path / "data", limit=1)
    for record in (b"a", b"b", b"c"):
        file.write(record)
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data",
        "data-2026-11-20T15-04-05.123",
        "data-2026-11-20T15-04-05.124",
    ]


def test_localtime(tmp_path, monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Etc/GMT-2")
    time.tzset()
    try:
        file = rotating(tmp_path / "d.json", limit=1, localtime=True)
        file.write(b"a")
        file.write(b"b")
        file.close()
        assert file.backups() == [(NOON, tmp_path / "d-2026-11-20T17-04-05.123.json")]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_size_counts_what_was_there_before(tmp_path):
    path = tmp_path / "d.json"
    path.write_bytes(b"123456789")
    file = rotating(path)
    assert file.write(b"ab") == 1
    file.close()
    assert path.read_bytes() == b"ab"


def test_a_record_larger_than_a_file_gets_one_of_its_own(tmp_path):
    file = rotating(tmp_path / "d.json")
    assert file.write(b"x" * 50) == 0
    assert file.write(b"y" * 50) == 1
    file.close()
    assert (tmp_path / "d.json").read_bytes() == b"y" * 50


def test_old_and_surplus_files_go_and_others_stay(tmp_path):
    for name in ("d-2026-11-10T00-00-00.000.json", "d-2026-11-19T00-00-00.000.json", "d-2026-11-20T00-00-00.000.json"):
        (tmp_path / name).touch()
    others = {"d-notes.json", "dd-2026-11-01T00-00-00.000.json", "d-2026-99-99T00-00-00.000.json", "d-2026-11-01.txt"}
    for name in others:
        (tmp_path / name).touch()
    rotating(tmp_path / "d.json", max_days=7).close()
    left = {path.name for path in tmp_path.iterdir()} - others
    assert left == {"d.json", "d-2026-11-19T00-00-00.000.json", "d-2026-11-20T00-00-00.000.json"}
    rotating(tmp_path / "d.json", max_backups=1).close()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"d.json", "d-2026-11-20T00-00-00.000.json"} | others
    rotating(tmp_path / "d.json", max_backups=0).close()
    assert {path.name for path in tmp_path.iterdir()} == left


def test_goes_on_after_a_rotation_that_failed_half_way(tmp_path, monkeypatch):
    path = tmp_path / "d.json"
    file = rotating(path, limit=1)
    file.write(b"a")

    def broken(*_arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(file_exporter.os, "open", broken)
    with pytest.raises(PermissionError):
        file.write(b"b")
    monkeypatch.undo()
    file.write(b"b")
    file.close()
    assert path.read_bytes() == b"b"
    assert (tmp_path / "d-2026-11-20T15-04-05.123.json").read_bytes() == b"a"


@given(st.lists(st.binary(min_size=1, max_size=15), max_size=30))
def test_every_record_is_whole_in_one_file_and_in_order(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("rotation") / "d.bin"
    file = rotating(path, max_backups=0)
    for record in records:
        file.write(record)
    full = [backup.read_bytes() for _, backup in reversed(file.backups())]
    file.close()
    files = [*full, path.read_bytes()]
    assert b"".join(files) == b"".join(records)
    ends = {0}
    total = 0
    for record in records:
        total += len(record)
        ends.add(total)
    assert all(sum(map(len, files[: number + 1])) in ends for number in range(len(files)))
    assert all(len(data) <= 10 or data in records for data in files)
