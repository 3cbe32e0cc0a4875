import pytest
import structlog

from otelwp_agent.control.directory import Directory, TenantDirectory, TenantEntry
from otelwp_agent.control.errors import SnapshotError, StoreUnreachableError
from otelwp_agent.control.snapshot_file import SnapshotFile
from otelwp_agent.control.snapshot_keeper import SnapshotKeeper
from otelwp_agent.control.store import Store
from otelwp_agent.control.store_thread import StoreThread

ONE = Directory(4, {}, [TenantEntry("acme", "free", active=True)], {"acme": 0}, {})
TWO = Directory(5, {}, [], {}, {})
AWAY = StoreUnreachableError("the server cannot be reached")


class Clock:
    """A monotonic clock that is set by hand."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def thread(tmp_path):
    thread = StoreThread(Store(f"sqlite:///{tmp_path}/control.db"))
    yield thread
    await thread.close()


@pytest.fixture
def make(tmp_path, hasher, thread, clock):
    def build():
        directory = TenantDirectory(hasher)
        file = SnapshotFile(tmp_path / "snapshot", thread.store.location, hasher)
        return SnapshotKeeper(file, directory, thread, clock=clock, log=structlog.get_logger()), directory

    return build


async def test_the_file_follows_the_directory(make, tmp_path, clock):
    keeper, directory = make()
    directory.replace(ONE)
    directory.refreshed_at = clock.now
    await keeper.update()
    written = (tmp_path / "snapshot").stat()
    assert keeper._file.load()[0] == ONE
    assert keeper.state() == {"file": str(tmp_path / "snapshot"), "in_use": False, "error": ""}
    clock.now += 1000
    await keeper.update()
    unchanged = (tmp_path / "snapshot").stat()
    assert unchanged.st_ino == written.st_ino, "written again without a change"
    assert keeper._file.load()[1] == pytest.approx(1000, abs=60), "the time of the last comparison"
    directory.replace(TWO)
    directory.refreshed_at = clock.now
    await keeper.update()
    loaded, age = keeper._file.load()
    assert loaded == TWO
    assert age < 60


async def test_it_is_used_while_the_store_is_away(make, clock):
    first, directory = make()
    directory.replace(ONE)
    directory.refreshed_at = clock.now - 5000
    await first.update()
    second, directory = make()
    await second.use(AWAY)
    assert (directory.current, directory.error) == (ONE, "the server cannot be reached")
    assert clock.now - directory.refreshed_at == pytest.approx(5000, abs=60)
    assert second.in_use
    await second.update()
    assert second._file.load()[1] == pytest.approx(5000, abs=60), "the store was not compared"
    directory.replace(TWO)
    directory.refreshed_at = clock.now
    assert not second.in_use
    await second.update()
    assert second._file.load()[0] == TWO


async def test_without_a_file_both_reasons_are_given(make):
    keeper, directory = make()
    with pytest.raises(SnapshotError, match=r"the server cannot be reached; there is no snapshot .* yet"):
        await keeper.use(AWAY)
    assert directory.version == 0


async def test_a_failed_write_is_reported_and_repeated(make, tmp_path, clock):
    keeper, directory = make()
    directory.replace(ONE)
    directory.refreshed_at = clock.now
    (tmp_path / "snapshot.new").mkdir()
    await keeper.update()
    assert keeper.failures == 1
    assert "cannot write the snapshot" in keeper.state()["error"]
    (tmp_path / "snapshot.new").rmdir()
    await keeper.update()
    assert keeper.state()["error"] == ""
    (tmp_path / "snapshot").unlink()
    await keeper.update()
    await keeper.update()
    assert keeper._file.load()[0] == ONE
    assert keeper.failures == 2
