import errno
import os
import stat

import pytest

from otelwp_agent.storage import files
from otelwp_agent.storage.files import UnsafePathError

NOBODY = 65534
WRITE = os.O_WRONLY | os.O_CREAT
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user takes root")


@pytest.fixture
def shared(tmp_path):
    """Return a directory like /tmp."""
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o1777)
    return path


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "target"
    path.write_text("precious")
    return path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_new_files_and_directories_are_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        files.make_directory(tmp_path / "a" / "b")
        os.close(files.open_file(tmp_path / "a" / "b" / "c", WRITE))
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [0o700, 0o700, 0o600]


def test_an_existing_directory_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    files.make_directory(tmp_path)
    assert mode(tmp_path) == 0o755
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        files.make_directory(tmp_path / "file")


def test_the_permissions_of_others_for_an_older_file_are_removed(tmp_path):
    path = tmp_path / "x"
    path.touch(0o644)
    fd = files.open_file(path, WRITE)
    files.make_private(fd)
    os.close(fd)
    assert mode(path) == 0o600


@pytest.mark.parametrize("flags", [WRITE, WRITE | os.O_TRUNC, os.O_RDWR])
def test_a_symbolic_link_where_others_can_write_is_refused(shared, target, flags):
    link = shared / "traces.json"
    link.symlink_to(target)
    with pytest.raises(UnsafePathError, match=r"traces\.json is a symbolic link, and other users can write in "):
        files.open_file(link, flags)
    assert target.read_text() == "precious"


def test_a_symbolic_link_that_appears_after_the_check_is_refused(shared, target, monkeypatch):
    link = shared / "traces.json"
    link.symlink_to(target)
    monkeypatch.setattr(files, "check_path", lambda _: True)
    with pytest.raises(UnsafePathError, match="is a symbolic link"):
        files.open_file(link, WRITE | os.O_TRUNC)
    assert target.read_text() == "precious"


def test_a_hard_link_and_a_fifo_where_others_can_write_are_refused(shared, target):
    (shared / "hard").hardlink_to(target)
    os.mkfifo(shared / "fifo")
    with pytest.raises(UnsafePathError, match="is a hard link"):
        files.open_file(shared / "hard", WRITE | os.O_TRUNC)
    with pytest.raises(UnsafePathError, match="neither a file nor a directory"):
        files.open_file(shared / "fifo", WRITE)
    assert target.read_text() == "precious"


def test_a_directory_that_is_a_link_where_others_can_write_is_refused(shared, tmp_path):
    (shared / "journal").symlink_to(tmp_path)
    with pytest.raises(UnsafePathError, match="journal is a symbolic link"):
        files.make_directory(shared / "journal")
    with pytest.raises(UnsafePathError, match="journal is a symbolic link"):
        files.open_file(shared / "journal" / "x", WRITE)
    (tmp_path / "safe").symlink_to(shared / "journal")
    with pytest.raises(UnsafePathError, match="journal is a symbolic link"):
        files.make_directory(tmp_path / "safe" / "deeper")


@as_root
def test_a_directory_or_file_of_another_user_where_others_can_write_is_refused(shared):
    theirs = shared / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    with pytest.raises(UnsafePathError, match="belongs to user 65534"):
        files.make_directory(theirs)
    (shared / "file").touch()
    os.chown(shared / "file", NOBODY, NOBODY)
    with pytest.raises(UnsafePathError, match="belongs to user 65534"):
        files.open_file(shared / "file", WRITE)


@as_root
def test_a_user_is_trusted_with_files_in_a_directory_of_their_own_but_not_with_links(tmp_path, target):
    home = tmp_path / "home"
    home.mkdir()
    (home / "file").touch()
    (home / "link").symlink_to(target)
    for path in (home, home / "file"):
        os.chown(path, NOBODY, NOBODY)
    os.close(files.open_file(home / "file", WRITE))
    with pytest.raises(UnsafePathError, match="is a symbolic link"):
        files.open_file(home / "link", WRITE)


def test_a_symbolic_link_in_a_directory_of_the_agents_own_is_followed(tmp_path, target):
    (tmp_path / "link").symlink_to(target)
    os.close(files.open_file(tmp_path / "link", WRITE | os.O_TRUNC))
    assert target.read_text() == ""
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    os.close(files.open_file(tmp_path / "dangling", WRITE))
    assert (tmp_path / "made").exists()


def test_a_circle_of_links_is_an_error_and_not_an_endless_loop(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links") as raised:
        files.open_file(tmp_path / "a", WRITE)
    assert raised.value.errno == errno.ELOOP


def test_a_file_is_replaced_atomically(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    files.replace_file(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"):
            files.replace_file(path, b"new")
    assert ([child.name for child in tmp_path.iterdir()], path.read_bytes()) == (["state.json"], b"old")
    files.replace_file(path, b"new")
    assert (files.read_file(path), mode(path)) == (b"new", 0o600)


def test_short_reads_and_writes_are_continued(tmp_path, monkeypatch):
    write, pread, pwritev = os.write, os.pread, os.pwritev
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:2]))
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 2), offset))
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, offset: pwritev(fd, [b"".join(parts)[:2]], offset))
    files.replace_file(tmp_path / "x", b"abcdefg")
    assert files.read_file(tmp_path / "x") == b"abcdefg"
    fd = files.open_file(tmp_path / "x", os.O_RDWR)
    assert files.write_parts(fd, [b"1234", b"567"], 3) == 7
    assert files.read_at(fd, 100, 2) == b"c1234567"
    files.remove(tmp_path / "x")
    files.remove(tmp_path / "x")
    os.close(fd)
