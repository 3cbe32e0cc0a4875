import math
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.control import snapshot_file
from otelwp_agent.control.api_keys import ID_LENGTH, Hasher
from otelwp_agent.control.directory import Directory, PlanEntry, TenantEntry, pack_key
from otelwp_agent.control.errors import SnapshotError
from otelwp_agent.control.snapshot_file import SnapshotFile, decode, encode

HASHER = Hasher(b"p" * 32)
DIRECTORY = Directory(
    7,
    {
        "small": PlanEntry("pro", {"requests_per_second": 5, "request_burst": math.inf}, 30),
        "free": PlanEntry("free", {}, None),
    },
    [TenantEntry("acme", "small", active=True, attributes={"region": "eu"}), TenantEntry("böse", "free", active=False)],
    {"acme": 0, "böse": 1},
    {
        "a" * 16: pack_key(b"h" * 32, None, 0, 0b10001),
        "b" * 16: pack_key(b"i" * 32, 1_800_000_000.5, 1, 1),
    },
)


@pytest.fixture
def file(tmp_path):
    return SnapshotFile(tmp_path / "new" / "control.snapshot", "db:5432/control", HASHER)


def test_what_is_saved_is_loaded_with_its_age(file):
    file.save(DIRECTORY)
    loaded, age = file.load()
    assert loaded == DIRECTORY
    assert loaded.key("b" * 16) == DIRECTORY.key("b" * 16)
    assert 0 <= age < 60
    file.confirm(time.time() - 3600)
    assert file.load()[1] == pytest.approx(3600, abs=60)
    file.confirm(time.time() + 3600)
    assert file.load()[1] == 0, "a clock that was set back"


def test_it_is_replaced_as_a_whole_and_private(file):
    file.save(Directory(1))
    file.path.chmod(0o644)
    file.save(DIRECTORY)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert list(file.path.parent.iterdir()) == [file.path]
    assert b"wpo_live" not in file.path.read_bytes()


@given(
    keys=st.dictionaries(
        st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=ID_LENGTH, max_size=ID_LENGTH),
        st.binary(min_size=45, max_size=45),
        max_size=20,
    ),
    tenants=st.lists(st.text(min_size=1), unique=True, max_size=5),
)
def test_any_directory_comes_back(keys, tenants):
    directory = Directory(
        3,
        {},
        [TenantEntry(id_, "free", active=True) for id_ in tenants],
        {id_: at for at, id_ in enumerate(tenants)},
        keys,
    )
    assert decode(encode(directory, "store", HASHER), "store", HASHER) == directory


@pytest.mark.parametrize("position", [0, 30, 70, 100, -1])
def test_a_changed_byte_is_found(position):
    data = bytearray(encode(DIRECTORY, "store", HASHER))
    data[position] ^= 1
    with pytest.raises(SnapshotError, match=r"damaged|not a snapshot"):
        decode(bytes(data), "store", HASHER)


@pytest.mark.parametrize("size", [0, 10, 27, 40, 59, 62, 100, 300])
def test_a_truncated_file_is_refused(size, file):
    file.save(DIRECTORY)
    file.path.write_bytes(file.path.read_bytes()[:size])
    with pytest.raises(SnapshotError, match=r"the snapshot /.* (is damaged|is not a snapshot).*: remove it"):
        file.load()


def test_a_file_of_another_pepper_or_store_is_refused(file, tmp_path):
    file.save(DIRECTORY)
    with pytest.raises(SnapshotError, match="written with another pepper"):
        SnapshotFile(file.path, "db:5432/control", Hasher(b"q" * 32)).load()
    with pytest.raises(SnapshotError, match=r"is of the control store db:5432/control, and not of other\.db"):
        SnapshotFile(file.path, "other.db", HASHER).load()


def test_a_file_with_other_scopes_is_refused(monkeypatch):
    data = encode(DIRECTORY, "store", HASHER)
    monkeypatch.setattr(snapshot_file, "Scope", list(snapshot_file.Scope)[:-1])
    with pytest.raises(SnapshotError, match="other scopes"):
        decode(data, "store", HASHER)


def test_files_that_cannot_be_used_are_named(file, tmp_path, monkeypatch):
    with pytest.raises(SnapshotError, match=r"there is no snapshot .*control\.snapshot yet"):
        file.load()
    with pytest.raises(SnapshotError, match="cannot update the time of the snapshot"):
        file.confirm(0.0)
    with pytest.raises(SnapshotError, match="cannot read the snapshot"):
        SnapshotFile(tmp_path, "store", HASHER).load()
    (tmp_path / "file").touch()
    with pytest.raises(SnapshotError, match=r"cannot write the snapshot .* Give a file in a directory"):
        SnapshotFile(tmp_path / "file" / "snapshot", "store", HASHER).save(DIRECTORY)
    file.save(DIRECTORY)
    monkeypatch.setattr(snapshot_file, "MAX_SIZE", 100)
    with pytest.raises(SnapshotError, match="has more than 100 bytes"):
        file.load()


def test_a_link_in_a_directory_that_others_can_write_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    (tmp_path / "snapshot.new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SnapshotError, match="is a symbolic link"):
        SnapshotFile(tmp_path / "snapshot", "store", HASHER).save(DIRECTORY)
